"""The tables agree with each other and with real residues."""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np
import pytest
from Bio.Data.PDBData import protein_letters_1to3, protein_letters_3to1_extended
from hypothesis import given
from hypothesis import strategies as st

from protein_model.structures import (
    CHI_ATOMS,
    CHI_PI_PERIODIC,
    HEAVY_ATOMS,
    RESIDUE_LETTERS,
    RESIDUE_NAMES,
    UNKNOWN_RESIDUE,
    encode_sequence,
    read_structure,
    sequence_of,
)
from protein_model.structures.residues import ATOM_ALIASES, parent_type

EXAMPLES = Path(__file__).parents[2] / "protein_model" / "examples"
LETTERS_BY_CHI_COUNT = ("AGX", "CSTV", "DFHILNPWY", "EMQ", "KR")
CHI_COUNTS = {letter: count for count, letters in enumerate(LETTERS_BY_CHI_COUNT) for letter in letters}


def test_types():
    assert len(RESIDUE_LETTERS) == len(set(RESIDUE_LETTERS)) == 21
    assert RESIDUE_LETTERS[UNKNOWN_RESIDUE] == "X"
    for index, (letter, name) in enumerate(zip(RESIDUE_LETTERS[:20], RESIDUE_NAMES, strict=False)):
        assert protein_letters_1to3[letter].upper() == name
        assert parent_type(name) == index
    assert parent_type("UNK") == UNKNOWN_RESIDUE
    assert parent_type("HOH") is None and parent_type("DA") is None


def test_biopython_table_is_used():
    own = {"GLH", "HSE"}  # the force fields' meaning
    for name, letter in protein_letters_3to1_extended.items():
        if name.strip() not in own:
            assert parent_type(name.strip()) == RESIDUE_LETTERS.index(letter)


def test_heavy_atoms():
    assert all(atoms[:4] == ("N", "CA", "C", "O") and len(set(atoms)) == len(atoms) <= 14 for atoms in HEAVY_ATOMS)
    assert sum(map(len, HEAVY_ATOMS[:20])) == 167  # of the twenty amino-acid residues together
    for letter, alias, name in ATOM_ALIASES:
        atoms = HEAVY_ATOMS[RESIDUE_LETTERS.index(letter)]
        assert name in atoms and alias not in atoms


@pytest.mark.parametrize("letter", RESIDUE_LETTERS)
def test_chi(letter):
    index = RESIDUE_LETTERS.index(letter)
    assert len(CHI_ATOMS[index]) == len(CHI_PI_PERIODIC[index]) == CHI_COUNTS[letter]
    for first, second in zip(CHI_ATOMS[index], CHI_ATOMS[index][1:], strict=False):
        assert first[1:] == second[:3]
    for quadruple in CHI_ATOMS[index]:
        assert set(quadruple) <= set(HEAVY_ATOMS[index])
    periodic = [number for number, is_periodic in enumerate(CHI_PI_PERIODIC[index], 1) if is_periodic]
    assert periodic == {"D": [2], "E": [3], "F": [2], "Y": [2]}.get(letter, [])


def test_chi_atoms_are_bonded_in_real_residues():
    structure = read_structure(EXAMPLES / "5PTI.cif.gz")
    checked = 0
    for row, residue_type in enumerate(structure.residue_type):
        names = HEAVY_ATOMS[residue_type]
        for quadruple in CHI_ATOMS[residue_type]:
            slots = [names.index(name) for name in quadruple]
            if structure.atom_mask[row, slots].all():
                lengths = np.linalg.norm(np.diff(structure.coordinates[row, slots], axis=0), axis=1)
                assert (lengths > 1.2).all() and (lengths < 1.95).all(), (row, quadruple, lengths)
                checked += 1
    assert checked > 80


@given(st.text(RESIDUE_LETTERS, max_size=300))
def test_sequence_round_trip(sequence):
    types = encode_sequence(sequence)
    assert types.dtype == np.int8 and types.shape == (len(sequence),)
    assert sequence_of(types) == sequence == sequence_of(types.tolist())
    assert np.array_equal(encode_sequence(sequence.lower()), types)


def test_other_letters():
    assert sequence_of(encode_sequence("BJZUO")) == "XXXCK"


@given(st.text(max_size=20))
def test_only_letters_are_taken(text):
    wrong = [place for place, letter in enumerate(text) if letter not in string.ascii_letters]
    if wrong:
        with pytest.raises(ValueError, match=f"at place {wrong[0] + 1} of the sequence"):
            encode_sequence(text)
    else:
        assert len(encode_sequence(text)) == len(text)


@pytest.mark.parametrize("types", [[-1], [21], [0, 5, 127]])
def test_no_residue_type(types):
    with pytest.raises(ValueError, match="residue types must be 0 to 20"):
        sequence_of(types)
