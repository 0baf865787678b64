"""What a person gets from `import protein_model`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import protein_model
from protein_model import Constraints, design, load_model, read_structure, score
from tests.inference.evaluation_cases import EXAMPLES, tiny_model

HEAVY = ("torch", "transformers", "numpy", "gemmi", "datasets", "accelerate", "matplotlib")


@pytest.mark.parametrize("statement", ["import protein_model", "import protein_model.__main__"])
def test_importing_is_light(statement):
    """No library that takes seconds, so that `--help` answers at once."""
    program = f"{statement}\nimport sys\nprint([name for name in {HEAVY} if name in sys.modules])"
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "[]"


def test_names():
    assert all(getattr(protein_model, name) is not None for name in protein_model.__all__)
    assert set(protein_model.__all__) <= set(dir(protein_model))
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = protein_model.absent


def test_the_lines_of_the_readme(ship, tmp_path):
    tiny_model().save_pretrained(tmp_path / "model")
    ship(design=tmp_path / "model")
    model = load_model()
    structure = read_structure(EXAMPLES / "5PTI.cif.gz")
    designs = design(model, structure, num_sequences=4, constraints=Constraints(fixed="A5-10", omit="C"))
    scores = score(model, structure, designs.sequences)
    assert len(designs) == len(scores) == 4 and designs.scores.shape == scores.score.shape == (4,)
    assert all(sequence[4:10] == "CLEPPY" and sequence.count("C") == 1 for sequence in designs.sequences)
    assert designs.recovery.shape == (4,) and designs.confidence.shape == (4, 58)
    assert (designs.confidence[:, 4:10] == 1).all()
    assert np.array_equal(designs.designed_structure(2).residue_type, designs.designs.residue_type[2])
    assert scores.log_ratios.shape == (4, 58, 20) and scores.standard_error.min() > 0
