"""Helices and strands: the same as the paper's own rules give, and as the depositors of real files say."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import gemmi
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protein_model.structures import Structure, read_structure
from protein_model.structures.secondary_structure import COIL, HELIX, STRAND, secondary_structure
from tests.structures.dssp_oracle import dssp_states

EXAMPLES = Path(__file__).parents[2] / "protein_model" / "examples"
ANNOTATED = ["1orc.pdb.gz", "pdb1ake.pdb.gz", "pdb1ubi.pdb.gz", "1A8O.cif.gz", "1FAS.cif.gz", "5PTI.cif.gz"]


def letters(structure: Structure) -> str:
    return "".join("HE-"[state] for state in secondary_structure(structure))


def annotation(path: Path, structure: Structure) -> np.ndarray:
    """States by the HELIX and SHEET records, or the categories of an mmCIF file; -1 where nothing is said."""
    parsed = gemmi.read_structure(str(path))
    states = np.full(len(structure), COIL)
    chains = np.array(structure.chain_ids)[structure.chain_index]

    def mark(start, end, state):
        inside = (structure.residue_number >= start.res_id.seqid.num) & (
            structure.residue_number <= end.res_id.seqid.num
        )
        states[inside & (chains == start.chain_name)] = state

    for sheet in parsed.sheets:
        for strand in sheet.strands:
            mark(strand.start, strand.end, STRAND)
    for helix in parsed.helices:
        mark(helix.start, helix.end, HELIX)
    return states


@pytest.mark.parametrize("name", [*ANNOTATED, "1eteA.pdb.gz", "3t5gB.pdb.gz", "2cviA.pdb.gz"])
def test_it_is_what_the_rules_of_the_paper_give(name):
    structure = read_structure(EXAMPLES / name)
    assert letters(structure) == dssp_states(structure)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), shift=st.floats(0.0, 0.8), gaps=st.integers(0, 4), absent=st.integers(0, 4))
def test_it_is_what_the_rules_give_on_distorted_and_broken_chains(seed, shift, gaps, absent):
    generator = np.random.default_rng(seed)
    structure = read_structure(EXAMPLES / "pdb1ubi.pdb.gz")
    coordinates = structure.coordinates + generator.normal(scale=shift, size=structure.coordinates.shape)
    position = structure.position.copy()
    for start in generator.integers(1, len(structure), gaps):
        position[start:] += 3
    mask = structure.atom_mask.copy()
    mask[generator.integers(0, len(structure), absent), generator.integers(0, 4, absent)] = False
    distorted = replace(structure, coordinates=coordinates, position=position, atom_mask=mask)
    assert letters(distorted) == dssp_states(distorted)


def test_it_agrees_with_what_the_depositors_say():
    """Depositors use other programs and their own eyes; other implementations of DSSP agree as well as this one."""
    agreement = []
    for name in ANNOTATED:
        structure = read_structure(EXAMPLES / name)
        same = secondary_structure(structure) == annotation(EXAMPLES / name, structure)
        assert same.mean() > 0.75, name
        agreement += same.tolist()
    assert np.mean(agreement) > 0.88


@pytest.mark.slow
def test_it_agrees_with_the_annotation_of_many_files(shared_data):
    agreement = []
    for path in sorted((shared_data / "fullatom" / "files").glob("rcsbmock*")) + sorted(
        (shared_data / "fullatom" / "files").glob("biotite*")
    ):
        parsed = gemmi.read_structure(str(path))
        if not len(parsed.helices):
            continue
        structure = read_structure(path)
        agreement.append((secondary_structure(structure) == annotation(path, structure)).mean())
    if not agreement:
        pytest.skip("no file with annotation")
    assert np.median(agreement) > 0.85


def place(a, b, c, length, angle, torsion):
    """A point at a distance from c, an angle at c and a torsion about b-c."""
    angle, torsion = math.radians(angle), math.radians(torsion)
    bc = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, bc)
    normal /= np.linalg.norm(normal)
    frame = np.stack([bc, np.cross(normal, bc), normal])
    local = [-math.cos(angle), math.sin(angle) * math.cos(torsion), math.sin(angle) * math.sin(torsion)]
    return c + length * (np.array(local) @ frame)


def ideal_chain(phi, psi, count=20) -> Structure:
    """A chain of standard geometry with the same torsions everywhere (bond lengths and angles: Engh and Huber 1991)."""
    atoms = [np.array([0.0, 0, 0]), np.array([1.46, 0, 0]), np.array([2.0, 1.42, 0])]
    while len(atoms) < 3 * count + 1:
        atoms.append(place(*atoms[-3:], 1.329, 116.2, psi))
        atoms.append(place(*atoms[-3:], 1.458, 121.7, 180.0))
        atoms.append(place(*atoms[-3:], 1.525, 111.2, phi))
    backbone = np.zeros((count, 14, 3), np.float32)
    for row in range(count):
        n, ca, c = atoms[3 * row : 3 * row + 3]
        following = atoms[3 * row + 3]
        backbone[row, :3] = n, ca, c
        middle = (ca - c) / np.linalg.norm(ca - c) + (following - c) / np.linalg.norm(following - c)
        backbone[row, 3] = c - 1.231 * middle / np.linalg.norm(middle)
    mask = np.zeros((count, 14), bool)
    mask[:, :4] = True
    return Structure(
        name="ideal",
        residue_type=np.zeros(count, np.int8),
        coordinates=backbone,
        atom_mask=mask,
        b_factor=np.zeros((count, 14), np.float32),
        occupancy=mask.astype(np.float32),
        chain_index=np.zeros(count, np.int16),
        chain_ids=("A",),
        residue_number=np.arange(1, count + 1, dtype=np.int32),
        insertion_code=np.full(count, " "),
        position=np.arange(count, dtype=np.int32),
    )


@pytest.mark.parametrize(("phi", "psi"), [(-57.0, -47.0), (-49.0, -26.0)], ids=["alpha", "3-10"])
def test_ideal_helices(phi, psi):
    states = letters(ideal_chain(phi, psi))
    assert states == "-" + "H" * 18 + "-"


def test_a_single_extended_strand_has_no_partner():
    assert letters(ideal_chain(-120.0, 130.0)) == "-" * 20


def test_a_helix_does_not_go_on_over_a_gap():
    helix = ideal_chain(-57.0, -47.0)
    position = helix.position.copy()
    position[10:] += 5
    broken = letters(replace(helix, position=position))
    assert broken == "-" + "H" * 8 + "--" + "H" * 8 + "-"


def test_a_sheet_may_lie_between_chains():
    """Half of a hairpin in another chain: the strands stay, as long as they do not touch the cut."""
    whole = read_structure(EXAMPLES / "pdb1ubi.pdb.gz")
    cut = 9  # in the turn of the first hairpin
    chain_index = np.where(np.arange(len(whole)) < cut, 0, 1).astype(np.int16)
    apart = replace(whole, chain_index=chain_index, chain_ids=("A", "B"))
    assert letters(apart)[1:7] == letters(whole)[1:7] == "EEEEEE"


def test_only_the_backbone_counts_and_not_where_it_lies():
    structure = read_structure(EXAMPLES / "1orc.pdb.gz")
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    rotation *= np.linalg.det(rotation)
    mask = structure.atom_mask.copy()
    mask[:, 4:] = False
    moved = replace(
        structure,
        coordinates=(structure.coordinates @ rotation + 50).astype(np.float32),
        atom_mask=mask,
        residue_type=structure.residue_type[::-1].copy(),
    )
    assert letters(moved) == letters(structure)


def test_nothing_to_say_of_no_backbone():
    structure = read_structure(EXAMPLES / "1orc.pdb.gz")
    empty = replace(structure, atom_mask=np.zeros_like(structure.atom_mask))
    assert letters(empty) == "-" * len(structure)
    assert letters(structure.take(np.array([], int))) == ""
