"""A gap is never a bond, a bond is never a gap, whatever the numbers say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from protein_model.structures import read_structure, write_structure
from protein_model.structures.positions import NO_LABEL, peptide_bonds, position_index

EXAMPLES = Path(__file__).parents[2] / "protein_model" / "examples"


@st.composite
def numbered_chains(draw):
    count = draw(st.integers(1, 30))
    numbers = st.integers(-(2**31), 2**31 - 1) | st.integers(-5, 30)
    chain_index = np.sort(draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)))
    bonded = np.array(draw(st.lists(st.booleans(), min_size=count - 1, max_size=count - 1)), bool)
    bonded &= chain_index[1:] == chain_index[:-1]
    residue_number = np.array(draw(st.lists(numbers, min_size=count, max_size=count)), np.int32)
    labels = st.integers(1, 500) | st.just(NO_LABEL)
    label = np.array(draw(st.lists(labels, min_size=count, max_size=count)))
    return bonded, chain_index, residue_number, label


@given(numbered_chains())
def test_position_is_one_further_exactly_over_bonds(case):
    bonded, chain_index, residue_number, label = case
    position = position_index(bonded, chain_index, residue_number, label)
    same_chain = chain_index[1:] == chain_index[:-1]
    steps = np.diff(position.astype(np.int64))
    assert np.array_equal(same_chain & (steps == 1), bonded)
    assert (steps[same_chain] >= 1).all()
    assert (position[np.concatenate([[True], ~same_chain])] == 0).all()
    known = same_chain & ~bonded & (label[1:] != NO_LABEL) & (label[:-1] != NO_LABEL) & (np.diff(label) > 1)
    assert np.array_equal(steps[known], np.diff(label)[known])


def test_removed_residues_leave_a_jump(tmp_path):
    whole = read_structure(EXAMPLES / "pdb1ubi.pdb.gz")
    keep = np.ones(len(whole), bool)
    keep[20:27] = False
    keep[50] = False
    for ending in (".pdb", ".cif"):
        write_structure(whole.take(keep), tmp_path / f"gap{ending}")
        cut = read_structure(tmp_path / f"gap{ending}")
        assert np.array_equal(cut.position, whole.position[keep])


def test_bonds_do_not_depend_on_place_or_orientation():
    structure = read_structure(EXAMPLES / "3e8mA.pdb.gz")
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    moved = structure.coordinates @ rotation.astype(np.float32) + 7

    def bonds(coordinates):
        return peptide_bonds(
            coordinates,
            structure.atom_mask,
            structure.chain_index,
            structure.residue_number,
            structure.insertion_code,
            np.full(len(structure), NO_LABEL),
        )

    assert np.array_equal(bonds(moved), bonds(structure.coordinates))
    assert bonds(moved).mean() > 0.9
