"""Nothing of the native sequence is left in what a model is given."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from protein_model.inference.blinding import blinded
from tests.inference.evaluation_cases import small_structures, with_sequence


def same(first, second) -> bool:
    return all(
        np.array_equal(getattr(first, field.name), getattr(second, field.name))
        if isinstance(getattr(first, field.name), np.ndarray)
        else getattr(first, field.name) == getattr(second, field.name)
        for field in fields(first)
    )


@pytest.mark.parametrize("index", range(4))
def test_whatever_the_native_sequence_and_side_chains_are_the_blinded_structure_is_the_same(index):
    structure = small_structures()[index]
    hidden = blinded(structure)
    for seed in range(3):
        assert same(blinded(with_sequence(structure, seed)), hidden)
    unknown = replace(structure, residue_type=np.full(len(structure), 20, np.int8))
    assert same(blinded(unknown), hidden)
    assert np.array_equal(hidden.coordinates[:, :4], structure.coordinates[:, :4])
    assert np.array_equal(hidden.backbone_complete, structure.backbone_complete)
    assert not hidden.atom_mask[:, 4:].any() and not hidden.coordinates[:, 4:].any() and not hidden.b_factor.any()


def test_scrambled_types_are_no_better_than_chance():
    structures = small_structures()
    agreement = np.concatenate([blinded(one).residue_type == one.residue_type for one in structures])
    assert agreement.mean() < 0.12
    assert all((blinded(one).residue_type < 20).all() for one in structures)
