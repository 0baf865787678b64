"""Where the chain goes on and where residues are missing: peptide bonds and the position index.

Geometry decides whether two neighbours are bonded, whatever numbers a file gives them; SEQRES, label numbering and
author numbering, in this order, only tell how many residues are missing in between.
"""

from __future__ import annotations

import numpy as np

MAX_PEPTIDE_BOND = 2.5  # angstrom between C and the next N; the limit of DSSP (Kabsch and Sander 1983)
MAX_CALPHA_DISTANCE = 4.3  # angstrom between neighbouring CA; the limit of Bio.PDB's CaPPBuilder
MAX_AUTHOR_JUMP = 1000  # larger steps of author numbers mark fused proteins, not missing residues
NO_LABEL = -1
_N, _CA, _C = 0, 1, 2


def peptide_bonds(
    coordinates: np.ndarray,
    atom_mask: np.ndarray,
    chain_index: np.ndarray,
    residue_number: np.ndarray,
    insertion_code: np.ndarray,
    label: np.ndarray,
) -> np.ndarray:
    """Which neighbours in the file are neighbours in the chain.

    Decided by the distance between C and N; where one of these is missing, between the CA; where these are missing too,
    by consecutive label numbers or else author numbers.

    Parameters
    ----------
    coordinates : (N, 14, 3), angstrom; only N, CA and C are used
    atom_mask : (N, 14) bool
    chain_index, residue_number, insertion_code : (N,)
    label : (N,) int, place in the full sequence of the chain, -1 where unknown

    Returns
    -------
    (N - 1,) bool, True where residues i and i + 1 are bonded
    """
    before, after = slice(None, -1), slice(1, None)
    same_chain = chain_index[before] == chain_index[after]

    def within(atom_before: int, atom_after: int, limit: float) -> tuple[np.ndarray, np.ndarray]:
        step = coordinates[after, atom_after] - coordinates[before, atom_before]
        return atom_mask[before, atom_before] & atom_mask[after, atom_after], (step * step).sum(axis=1) <= limit**2

    has_bond_atoms, bonded = within(_C, _N, MAX_PEPTIDE_BOND)
    has_calphas, near = within(_CA, _CA, MAX_CALPHA_DISTANCE)
    labelled = (label[before] != NO_LABEL) & (label[after] != NO_LABEL)
    step = residue_number[after].astype(np.int64) - residue_number[before]
    inserted = (step == 0) & (insertion_code[after] != insertion_code[before])
    consecutive = np.where(labelled, label[after] - label[before] == 1, (step == 1) | inserted)
    return same_chain & np.where(has_bond_atoms, bonded, np.where(has_calphas, near, consecutive))


def position_index(
    bonded: np.ndarray, chain_index: np.ndarray, residue_number: np.ndarray, label: np.ndarray
) -> np.ndarray:
    """Index along each chain that grows by one over a peptide bond and by at least two over a gap.

    Parameters
    ----------
    bonded : (N - 1,) bool, as `peptide_bonds` gives it
    chain_index, residue_number : (N,)
    label : (N,) int, place in the full sequence of the chain, -1 where unknown

    Returns
    -------
    (N,) int32, 0 at the first residue of each chain
    """
    by_author = residue_number[1:].astype(np.int64) - residue_number[:-1]
    by_author[by_author > MAX_AUTHOR_JUMP] = 0
    labelled = (label[1:] != NO_LABEL) & (label[:-1] != NO_LABEL)
    by_label = np.where(labelled, label[1:] - label[:-1], 0)
    step = np.where(bonded, 1, np.maximum(2, np.where(by_label > 1, by_label, by_author)))
    running = np.concatenate([[0], np.cumsum(step)])
    first = np.concatenate([[True], chain_index[1:] != chain_index[:-1]])
    return (running - running[first][np.cumsum(first) - 1]).astype(np.int32)
