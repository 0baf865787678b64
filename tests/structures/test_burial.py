"""Counting CB atoms nearby: against all pairs one by one, and against real CB atoms."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from protein_model.model import features
from protein_model.structures import burial, read_structure
from protein_model.structures.burial import close_pairs, neighbour_count, virtual_cb

EXAMPLES = Path(__file__).parents[2] / "protein_model" / "examples"


@settings(max_examples=60, deadline=None)
@given(count=st.integers(0, 60), seed=st.integers(0, 1000), cutoff=st.floats(0.1, 30.0), block=st.integers(1, 70))
def test_pairs_are_all_pairs_within_the_cutoff(count, seed, cutoff, block):
    points = np.random.default_rng(seed).normal(scale=8.0, size=(count, 3)).astype(np.float32) + 300
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(burial, "_ROWS_PER_BLOCK", block)
        found = [pair for rows, partners in close_pairs(points, cutoff) for pair in zip(rows, partners, strict=True)]
    distances = {
        (i, j): math.dist(points[i].astype(float), points[j].astype(float))
        for i in range(count)
        for j in range(count)
        if i != j
    }
    near = [pair for pair, distance in distances.items() if distance <= cutoff]
    unsure = {pair for pair, distance in distances.items() if abs(distance - cutoff) < 1e-5}
    assert [pair for pair in found if pair not in unsure] == [pair for pair in near if pair not in unsure]


@pytest.mark.parametrize("name", ["1orc.pdb.gz", "pdb1ubi.pdb.gz", "5PTI.cif.gz"])
def test_counts_are_those_of_all_pairs(name):
    structure = read_structure(EXAMPLES / name)
    mask = structure.atom_mask.copy()
    mask[[3, 7], [0, 3]] = False
    structure = replace(structure, atom_mask=mask)
    counts = neighbour_count(structure)
    points = virtual_cb(structure.coordinates[:, :4].astype(float))
    usable = structure.backbone_complete
    for row in range(len(structure)):
        if not usable[row]:
            assert counts[row] == -1
            continue
        near = [
            other
            for other in range(len(structure))
            if other != row and usable[other] and math.dist(points[row], points[other]) <= 10.0
        ]
        assert counts[row] == len(near)
    assert (counts == -1).sum() == 2 + (~read_structure(EXAMPLES / name).backbone_complete).sum()


def test_virtual_cb_is_the_one_of_the_model_and_near_the_real_one():
    structure = read_structure(EXAMPLES / "pdb1ake.pdb.gz")
    backbone = structure.coordinates[:, :4]
    found = virtual_cb(backbone)
    assert np.allclose(found, features.virtual_cb(torch.from_numpy(backbone)).numpy(), atol=1e-4)
    has_cb = structure.atom_mask[:, 4]
    assert np.linalg.norm(found - structure.coordinates[:, 4], axis=1)[has_cb].mean() < 0.15


def test_the_middle_of_a_protein_is_more_buried_than_its_ends():
    structure = read_structure(EXAMPLES / "pdb1ake.pdb.gz")
    counts = neighbour_count(structure)
    from_centre = np.linalg.norm(structure.coordinates[:, 1] - structure.coordinates[:, 1].mean(axis=0), axis=1)
    assert np.corrcoef(counts, from_centre)[0, 1] < -0.5
