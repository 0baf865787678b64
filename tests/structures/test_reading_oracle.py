"""`read_structure` (gemmi) against an independent reader (Bio.PDB) on real files: identical arrays."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from protein_model.structures import UNKNOWN_RESIDUE, Structure, read_structure
from protein_model.structures.residues import parent_type
from tests.structures.biopython_oracle import OracleStructure, read_with_biopython

EXAMPLES = sorted((Path(__file__).parents[2] / "protein_model" / "examples").glob("*.gz"))
FIELDS = (
    "chain_ids",
    "chain_index",
    "residue_number",
    "insertion_code",
    "residue_type",
    "atom_mask",
    "coordinates",
    "b_factor",
    "occupancy",
    "resolution",
    "method",
)

# Chains of the large data set whose residues, put where the position index says, are not those of SEQRES, and why.
SEQRES_DISAGREEMENTS = {
    ("biojava__1lnl.pdb.gz", "A"): "residues -1 and 1 are neighbours in SEQRES but too far apart for a bond",
    ("biojava__1lnl.pdb.gz", "B"): "as chain A",
    ("biojava__1lnl.pdb.gz", "C"): "as chain A",
    ("ddg__1CLW.pdb.gz", "A"): "residues 507 and 508 are neighbours in SEQRES but too far apart for a bond",
    ("passer__3IYD.pdb.gz", "C"): "SEQRES and the modelled residues differ over long stretches",
    ("passer__3IYD.pdb.gz", "F"): "SEQRES and the modelled residues differ at one place beside a gap",
}


@pytest.fixture
def large_set(shared_data) -> list[Path]:
    files = sorted((shared_data / "fullatom" / "files").glob("*.gz"))
    assert files, f"there are no files in {shared_data}/fullatom/files"
    return files


def differences(structure: Structure, expected: OracleStructure) -> list[str]:
    found = [name for name in FIELDS if not np.array_equal(getattr(structure, name), getattr(expected, name))]
    steps = np.diff(structure.position)
    same_chain = np.diff(structure.chain_index) == 0
    if len(steps) != len(expected.bonded) or not np.array_equal(same_chain & (steps == 1), expected.bonded):
        found.append("peptide bonds")
    elif not (steps[same_chain] >= 1).all():
        found.append("position does not grow")
    return found


def test_there_are_examples():
    assert len(EXAMPLES) == 41
    assert sum(path.stat().st_size for path in EXAMPLES[0].parent.iterdir() if path.is_file()) < 2**20


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples(path):
    structure = read_structure(path)
    assert differences(structure, read_with_biopython(path)) == []
    assert structure.backbone_complete.mean() > 0.97
    assert (structure.residue_type != UNKNOWN_RESIDUE).all()


def test_the_comparison_sees_a_difference():
    structure, expected = read_structure(EXAMPLES[0]), read_with_biopython(EXAMPLES[0])
    structure.coordinates[3, 1, 2] += 1e-4
    structure.position[5:] += 1
    assert differences(structure, expected) == ["coordinates", "peptide bonds"]


@pytest.mark.slow
def test_large_set(large_set):
    differing = {}
    for path in large_set:
        found = differences(read_structure(path), read_with_biopython(path))
        if found:
            differing[path.name] = found
    assert differing == {}


@pytest.mark.slow
def test_positions_fit_seqres(large_set):
    """Wherever a chain has gaps, its residues stand in SEQRES where the position index puts them."""
    checked, wrong = 0, set()
    for path in large_set:
        if ".cif" in path.name:
            continue
        sequences = seqres(path)
        if not sequences:
            continue
        for chain in read_structure(path).chains():
            [chain_id] = chain.chain_ids
            if chain_id in sequences and (np.diff(chain.position) > 1).any():
                checked += 1
                full, last = sequences[chain_id], int(chain.position[-1])
                starts = range(len(full) - last)
                if not any((full[start + chain.position] == chain.residue_type).all() for start in starts):
                    wrong.add((path.name, chain_id))
    assert checked > 100
    assert wrong == set(SEQRES_DISAGREEMENTS)


def seqres(path: Path) -> dict[str, np.ndarray]:
    names: dict[str, list[str]] = {}
    with gzip.open(path, "rt", encoding="latin-1") as lines:
        for line in lines:
            if line.startswith("SEQRES"):
                names.setdefault(line[11].strip(), []).extend(line[19:70].split())
    types = {chain_id: [parent_type(name) for name in chain] for chain_id, chain in names.items()}
    return {
        chain_id: np.array([UNKNOWN_RESIDUE if known is None else known for known in chain])
        for chain_id, chain in types.items()
    }
