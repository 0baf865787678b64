"""Helix, strand or coil for every residue, by the hydrogen bonds of the backbone.

The method is DSSP (Kabsch and Sander, Biopolymers 22, 2577, 1983), from N, CA, C and O alone: the amide hydrogen is
put where the peptide plane has it, for proline as for all others, so that nothing depends on residue types. Its eight
states are reduced to three as in the assessments of CASP: H, G and I are helix, E and B are strand, all others coil.
Chain breaks come from the position index. Residues without a complete backbone take part in nothing and are coil.
"""

from __future__ import annotations

import numpy as np

from .burial import close_pairs
from .structure import Structure

HELIX, STRAND, COIL = 0, 1, 2
SECONDARY_STRUCTURES = ("helix", "strand", "coil")

# Kabsch and Sander 1983: partial charges 0.42 e and 0.20 e, 332 kcal angstrom / (mol e^2), bonds below -0.5 kcal/mol.
_COUPLING = 0.42 * 0.20 * 332.0
_BOND_ENERGY = -0.5
_SHORTEST_DISTANCE = 0.5  # angstrom; nearer atoms count as this near
_NH_LENGTH = 1.0  # angstrom
_MAX_CALPHA_DISTANCE = 9.0  # angstrom; between residues further apart there is no bond
_LONGEST_BULGE = (1, 4)  # residues that one strand and the other may have between two bridges of one ladder


def hydrogen_bonds(backbone: np.ndarray, bonded: np.ndarray) -> np.ndarray:
    """Hydrogen bonds from amides to carbonyls.

    Parameters
    ----------
    backbone : (N, 4, 3) angstrom, N CA C O
    bonded : (N - 1,) bool, residues i and i + 1 share a peptide bond; where they do not, i + 1 has no amide hydrogen

    Returns
    -------
    (P, 2) int64, residue of the acceptor C=O and of the donor N-H, ordered by both
    """
    count = len(backbone)
    if not count:
        return np.empty((0, 2), np.int64)
    xyz = backbone.astype(np.float64)
    nitrogen, carbon, oxygen = xyz[:, 0], xyz[:, 2], xyz[:, 3]
    has_hydrogen = np.concatenate([[False], bonded])
    hydrogen = nitrogen.copy()
    carbonyl = carbon[:-1] - oxygen[:-1]
    length = np.maximum(np.linalg.norm(carbonyl, axis=1, keepdims=True), 1e-9)
    hydrogen[1:] += _NH_LENGTH * carbonyl / length

    found = []
    for acceptor, donor in close_pairs(xyz[:, 1], _MAX_CALPHA_DISTANCE):
        # The N-H of the next residue belongs to the same peptide group as the C=O.
        possible = has_hydrogen[donor] & (donor != acceptor + 1)
        acceptor, donor = acceptor[possible], donor[possible]

        def inverse(first: np.ndarray, second: np.ndarray) -> np.ndarray:
            return 1.0 / np.maximum(np.linalg.norm(first - second, axis=1), _SHORTEST_DISTANCE)

        c, o, n, h = carbon[acceptor], oxygen[acceptor], nitrogen[donor], hydrogen[donor]
        energy = _COUPLING * (inverse(o, n) + inverse(c, h) - inverse(o, h) - inverse(c, n))
        found.append(np.stack([acceptor, donor], axis=1)[energy < _BOND_ENERGY])
    return np.concatenate(found)


def secondary_structure(structure: Structure) -> np.ndarray:
    """(N,) int8: 0 helix, 1 strand, 2 coil, as in `SECONDARY_STRUCTURES`."""
    states = np.full(len(structure), COIL, np.int8)
    usable = np.flatnonzero(structure.backbone_complete)
    if not len(usable):
        return states
    chain, position = structure.chain_index[usable], structure.position[usable]
    bonded = (chain[1:] == chain[:-1]) & (np.diff(position) == 1)
    pairs = hydrogen_bonds(structure.coordinates[usable, :4], bonded)
    # Rows of one unbroken stretch have the same number, so that a run of k residues is unbroken if its ends agree.
    stretch = np.concatenate([[0], np.cumsum(~bonded)])
    bonds = set(map(tuple, pairs.tolist()))

    helix = np.zeros(len(usable), bool)
    for start in _helix_starts(pairs, stretch, 4).tolist():
        helix[start : start + 4] = True
    strand = _strand_residues(bonds, stretch) & ~helix
    for turn in (3, 5):
        # As DSSP has it, a 3-10 or pi helix is there only where nothing that goes before it takes any of its residues.
        taken = helix | strand
        for start in _helix_starts(pairs, stretch, turn).tolist():
            if not taken[start : start + turn].any():
                helix[start : start + turn] = True
    states[usable[strand]] = STRAND
    states[usable[helix]] = HELIX
    return states


def _helix_starts(pairs: np.ndarray, stretch: np.ndarray, turn: int) -> np.ndarray:
    """First residues of minimal helices: the C=O of the residue before and its own are bonded `turn` residues on."""
    has_turn = np.zeros(len(stretch) + 1, bool)
    acceptor, donor = pairs[:, 0], pairs[:, 1]
    turns = acceptor[(donor - acceptor == turn) & (stretch[donor] == stretch[acceptor])]
    has_turn[turns] = True
    starts = np.flatnonzero(has_turn[1:-1] & has_turn[:-2]) + 1
    return starts[stretch[starts - 1] == stretch[starts]]


def _strand_residues(bonds: set[tuple[int, int]], stretch: np.ndarray) -> np.ndarray:
    """(N,) bool, residues in bridges and in the bulges of ladders."""
    bridges = {parallel: _bridges(bonds, stretch, parallel) for parallel in (True, False)}
    inside = np.zeros(len(stretch), bool)
    for parallel, pairs in bridges.items():
        for i, j in pairs:
            inside[[i, j]] = True
        for i, j in pairs:
            for i_next, j_next in _continuations(i, j, parallel):
                if (i_next, j_next) in pairs and stretch[i] == stretch[i_next] and stretch[j] == stretch[j_next]:
                    inside[i : i_next + 1] = True
                    inside[min(j, j_next) : max(j, j_next) + 1] = True
    return inside


def _bridges(bonds: set[tuple[int, int]], stretch: np.ndarray, parallel: bool) -> set[tuple[int, int]]:
    """Pairs i < j of residues that are bridge partners; each with an unbroken neighbour on both sides."""
    # Each pattern has two bonds; the first one, (acceptor, donor), leaves only these i and j to try.
    candidates: set[tuple[int, int]] = set()
    for acceptor, donor in bonds:
        if parallel:
            candidates |= {(acceptor + 1, donor), (donor, acceptor + 1)}
        else:
            candidates |= {(acceptor, donor), (donor, acceptor), (acceptor + 1, donor - 1), (donor - 1, acceptor + 1)}
    last = len(stretch) - 1
    found = set()
    for i, j in candidates:
        if not (i >= 1 and i + 3 <= j and j + 1 <= last):
            continue
        if stretch[i - 1] != stretch[i + 1] or stretch[j - 1] != stretch[j + 1]:
            continue
        if parallel:
            patterns = (((i - 1, j), (j, i + 1)), ((j - 1, i), (i, j + 1)))
        else:
            patterns = (((i, j), (j, i)), ((i - 1, j + 1), (j - 1, i + 1)))
        if any(first in bonds and second in bonds for first, second in patterns):
            found.add((i, j))
    return found


def _continuations(i: int, j: int, parallel: bool) -> list[tuple[int, int]]:
    """Where the next bridge of a ladder may be: directly after (i, j), or behind a bulge."""
    short, long = _LONGEST_BULGE
    sign = 1 if parallel else -1
    return [
        (i + 1 + gap_i, j + sign * (1 + gap_j))
        for gap_i in range(long + 1)
        for gap_j in range(long + 1)
        if min(gap_i, gap_j) <= short
    ]
