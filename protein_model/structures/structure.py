"""The one in-memory form of a protein structure that every other part of the package uses.

A `Structure` is plain NumPy arrays, one entry per residue, in file order. Reading and writing files is left to
`reading` and `writing`, residue and atom names to `residues`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

BACKBONE_ATOM_COUNT = 4  # N, CA, C, O are the first four of the heavy atoms of every residue type
MAX_HEAVY_ATOMS = 14  # tryptophan has the most


@dataclass(frozen=True, eq=False)
class Structure:
    """Protein residues of one file (or of some of its chains), `N` residues in all.

    Attributes
    ----------
    name : name of the structure, by default the file name without its endings
    residue_type : (N,) int8, index into `residues.RESIDUE_LETTERS`; 20 is an unknown residue (X)
    coordinates : (N, 14, 3) float32, angstrom; heavy atoms in the order of `residues.HEAVY_ATOMS`; 0 where absent
    atom_mask : (N, 14) bool, True where the file has the atom
    b_factor : (N, 14) float32, square angstrom; 0 where absent
    occupancy : (N, 14) float32, 0 to 1; 0 where absent
    chain_index : (N,) int16, index into `chain_ids`; all residues of one chain stand together
    chain_ids : author chain identifiers, one or several characters each
    residue_number : (N,) int32, author residue number
    insertion_code : (N,) one-character strings, a blank where there is none
    position : (N,) int32, index along the chain that jumps where residues are missing, so that two residues are
        covalently bonded only if they share a chain and their positions differ by one; the size of a jump is known
        (SEQRES or label numbering) or a lower estimate (author numbering, geometry)
    resolution : angstrom, None where the file does not say
    method : experimental method as the file names it, empty where it does not say
    """

    name: str
    residue_type: np.ndarray
    coordinates: np.ndarray
    atom_mask: np.ndarray
    b_factor: np.ndarray
    occupancy: np.ndarray
    chain_index: np.ndarray
    chain_ids: tuple[str, ...]
    residue_number: np.ndarray
    insertion_code: np.ndarray
    position: np.ndarray
    resolution: float | None = None
    method: str = ""

    def __len__(self) -> int:
        return len(self.residue_type)

    @property
    def backbone_complete(self) -> np.ndarray:
        """(N,) bool, True where N, CA, C and O are all present."""
        return np.asarray(self.atom_mask[:, :BACKBONE_ATOM_COUNT].all(axis=1))

    def take(self, rows: np.ndarray) -> Structure:
        """The residues at `rows` (indices or a boolean mask), in that order; chain identifiers stay as they are."""
        changed = {
            field.name: getattr(self, field.name)[rows]
            for field in fields(self)
            if isinstance(getattr(self, field.name), np.ndarray)
        }
        return replace(self, **changed)

    def chain(self, chain_id: str) -> Structure:
        """One chain alone.

        Raises
        ------
        KeyError : there is no such chain; the message names those that there are
        """
        if chain_id not in self.chain_ids:
            raise KeyError(f"{self.name} has no chain {chain_id!r}; it has {', '.join(map(repr, self.chain_ids))}")
        index = self.chain_ids.index(chain_id)
        part = self.take(self.chain_index == index)
        return replace(part, chain_ids=(chain_id,), chain_index=np.zeros(len(part), np.int16))

    def chains(self) -> list[Structure]:
        """All chains, one `Structure` each, in file order."""
        return [self.chain(chain_id) for chain_id in self.chain_ids]
