"""The models that the package ships, each of those that are there: small, whole, described, and able to design."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from protein_model import design, load_model
from protein_model.inference.design import DamagedModel
from protein_model.training.starting import StartError, starting_model
from protein_model.which_model import find_model, shipped_models
from tests.inference.evaluation_cases import example

MOST_BYTES = 12e6
MODELS = shipped_models()


@pytest.fixture(params=list(MODELS.values()), ids=list(MODELS))
def shipped(request) -> Path:
    """Folder of a shipped model."""
    return request.param


def test_the_weights_are_in_16_bits_and_small(shipped):
    path = shipped / "model.safetensors"
    with safe_open(path, "pt") as weights:
        types = {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118  # it is no mapping
    assert types == {"F16"}
    assert sum(file.stat().st_size for file in shipped.iterdir()) <= MOST_BYTES


def test_it_is_loaded_in_32_bits_and_has_no_code_of_its_own(shipped):
    assert load_model(shipped.name).dtype == torch.float32
    config = json.loads((shipped / "config.json").read_text(encoding="utf-8"))
    assert config["dtype"] == "float32" and "auto_map" not in config
    assert not list(shipped.glob("*.py"))


def test_its_card_says_what_it_is(shipped):
    card = (shipped / "README.md").read_text(encoding="utf-8")
    assert f"# {shipped.name}\n" in card and "## Evaluation" in card and "## Data" in card and "## Licence" in card


def test_it_designs_sequences_that_are_like_the_native_ones(shipped):
    """On structures of TS50, which no model here was trained on. Sequences of random types recover a twentieth."""
    model = load_model(shipped.name)
    structures = [example(name) for name in ("2xcjA.pdb.gz", "3a4rA.pdb.gz", "3pivA.pdb.gz")]
    results = [design(model, structure, num_sequences=4) for structure in structures]
    assert np.mean([result.recovery.mean() for result in results]) > 0.25
    assert all(len(set(sequence)) >= 12 for result in results for sequence in result.sequences)


DAMAGE = {
    "cut off": lambda folder: _rewrite(folder / "model.safetensors", lambda content: content[:-1000]),
    "garbage": lambda folder: _rewrite(folder / "model.safetensors", lambda content: b"x" * len(content)),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "no JSON": lambda folder: _rewrite(folder / "config.json", lambda content: content[:-5]),
    "other width": lambda folder: _rewrite(
        folder / "config.json", lambda content: content.replace(b'"hidden_dim": 80', b'"hidden_dim": 64')
    ),
    "no width": lambda folder: _rewrite(
        folder / "config.json", lambda content: content.replace(b'"hidden_dim": 80', b'"hidden_dim": "wide"')
    ),
}


def _rewrite(path, change):
    before = path.read_bytes()
    path.write_bytes(change(before))
    assert path.read_bytes() != before


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_model_is_one_message(damage, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(find_model("design"), folder)
    DAMAGE[damage](folder)
    with pytest.raises(DamagedModel, match="no model that can be loaded") as raised:
        load_model(folder)
    assert str(folder) in str(raised.value)
    assert "\n" not in str(raised.value)
    with pytest.raises(StartError, match="is no model of this package"):
        starting_model(str(folder), 0.0)
