"""How deep a residue lies in the protein, from the backbone alone: CB atoms nearby.

The count goes with relative solvent accessibility but needs no side chains, so that it is the same for a native
structure and for a bare backbone.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .structure import Structure

NEIGHBOUR_CUTOFF = 10.0  # angstrom between CB atoms; the usual choice of contact number (coordination number) studies
_ROWS_PER_BLOCK = 512  # bounds memory on large complexes


def virtual_cb(backbone: np.ndarray) -> np.ndarray:
    """CB where an ideal residue has it, for glycine as for all others.

    Parameters
    ----------
    backbone : (N, 4, 3) angstrom, N CA C O

    Returns
    -------
    (N, 3) angstrom. Coefficients: Dauparas et al. 2022 (ProteinMPNN), from ideal tetrahedral geometry.
    """
    n, ca, c = backbone[:, 0], backbone[:, 1], backbone[:, 2]
    b, a = ca - n, c - ca
    return np.asarray(-0.58273431 * np.cross(b, a) + 0.56802827 * b - 0.54067466 * a + ca)


def close_pairs(points: np.ndarray, cutoff: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of points within a distance, block by block.

    Parameters
    ----------
    points : (N, 3)
    cutoff : in the unit of the points

    Yields
    ------
    rows, partners : (P,) each, ordered by row; both orders of a pair, no point with itself
    """
    # Coordinates relative to the centre: differences of squares lose less in float64 than the cutoff could notice.
    centred = points.astype(np.float64) - points.mean(axis=0) if len(points) else points
    squares = (centred * centred).sum(axis=1)
    for start in range(0, len(points), _ROWS_PER_BLOCK):
        block = slice(start, start + _ROWS_PER_BLOCK)
        squared = squares[block, None] + squares - 2.0 * centred[block] @ centred.T
        rows, partners = np.nonzero(squared <= cutoff * cutoff)
        rows += start
        different = rows != partners
        yield rows[different], partners[different]


def neighbour_count(structure: Structure) -> np.ndarray:
    """Other residues of the structure, of any chain, whose virtual CB is within 10 angstrom.

    Returns
    -------
    (N,) int32, -1 where the residue's own backbone is incomplete; such residues are not counted either
    """
    usable = np.flatnonzero(structure.backbone_complete)
    counts = np.full(len(structure), -1, np.int32)
    counts[usable] = 0
    if len(usable):
        points = virtual_cb(structure.coordinates[usable, :4])
        for rows, _ in close_pairs(points, NEIGHBOUR_CUTOFF):
            counts[usable] += np.bincount(rows, minlength=len(usable)).astype(np.int32)
    return counts
