"""Structure files for tests of the data room: small ones by hand, copies of real ones; what a cache keeps of one."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from protein_model.structures import RESIDUE_NAMES, Structure
from tests.structures.pdb_text import chain

EXAMPLES = sorted((Path(__file__).parents[2] / "protein_model" / "examples").glob("*.gz"))
SMALL_EXAMPLES = sorted(EXAMPLES, key=lambda path: path.stat().st_size)[:8]


def pdb_text(length: int, residue: str = "ALA", chain_id: str = "A") -> str:
    """A PDB file of one chain, different for each length and residue."""
    return chain([residue] * length, chain=chain_id) + "TER\nEND\n"


def random_pdb_text(seed: int, length: int = 40) -> str:
    """A PDB file of one chain of random sequence."""
    letters = np.random.default_rng(seed).integers(0, 20, length)
    return chain([RESIDUE_NAMES[letter] for letter in letters]) + "TER\nEND\n"


def assert_same_structure(stored: Structure, read: Structure) -> None:
    """All that the cache keeps of a structure, bit by bit."""
    for field in ("residue_type", "coordinates", "atom_mask", "chain_index", "residue_number", "insertion_code"):
        np.testing.assert_array_equal(getattr(stored, field), getattr(read, field), err_msg=field, strict=True)
    np.testing.assert_array_equal(stored.position, read.position, strict=True)
    assert stored.chain_ids == read.chain_ids
    assert stored.method == read.method
    assert stored.resolution == read.resolution
    # Kept per residue, not per atom.
    atoms = np.maximum(read.atom_mask.sum(1), 1)
    mean = (read.b_factor * read.atom_mask).sum(1) / atoms
    np.testing.assert_allclose(stored.b_factor, np.where(read.atom_mask, mean[:, None], 0), rtol=1e-5)


def complex_of(name: str, chains: dict[str, Structure]) -> Structure:
    """Single chains put together, by their new chain identifiers."""
    parts = [replace(part, chain_index=np.full(len(part), i, np.int16)) for i, part in enumerate(chains.values())]
    arrays = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(Structure)
        if isinstance(getattr(parts[0], field.name), np.ndarray)
    }
    return replace(parts[0], name=name, chain_ids=tuple(chains), **arrays)


def copy_examples(folder: Path, times: int, examples: Sequence[Path] = SMALL_EXAMPLES) -> list[Path]:
    """Several copies of the small example structures under different names."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        Path(shutil.copy(path, folder / f"copy{number}_{path.name}")) for number in range(times) for path in examples
    ]
