"""The picture of designs."""

from __future__ import annotations

import numpy as np
from matplotlib import image

from protein_model.inference.constraints import Constraints
from protein_model.inference.design import design
from protein_model.inference.pictures import draw_designs, type_frequencies
from tests.inference.evaluation_cases import example, tiny_model


def test_frequencies():
    types = np.array([[0, 5, 20], [0, 6, 20], [0, 6, 20], [0, 20, 20]], np.int8)
    found = type_frequencies(types)
    assert found.shape == (3, 20) and found[0, 0] == 1 and found[2].sum() == 0
    np.testing.assert_allclose(found[1, 5:7], [1 / 3, 2 / 3])


def test_picture(tmp_path):
    """Two lines of residues, some fixed, one without a design."""
    structure = example("5PTI.cif.gz")
    result = design(tiny_model(), structure, 3, constraints=Constraints(fixed="A1-5", excluded="A30"))
    draw_designs(tmp_path / "designs.png", result)
    assert [path.name for path in tmp_path.iterdir()] == ["designs.png"]
    pixels = image.imread(tmp_path / "designs.png")
    assert pixels.shape[0] > 600 and pixels.shape[1] > 1000 and len(np.unique(pixels.reshape(-1, 4), axis=0)) > 50
