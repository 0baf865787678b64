"""Parts of a data set that lie together in the files of its cache, for runs whose machines read a part each.

Source files are dealt to the files of a cache by a hash, so structures that lie together there have no more in common
than any others; only the chains of one source file do.
"""

from __future__ import annotations

import numpy as np


def equal_parts(places: np.ndarray, lengths: np.ndarray, count: int) -> np.ndarray:
    """Cut structures into parts of neighbours in the cache that have nearly the same number of residues.

    Parameters
    ----------
    places : (rows,) of each structure in the order of the cache's files
    lengths : (rows,) residues
    count : parts

    Returns
    -------
    (rows,) int64, 0 to count - 1
    """
    order = np.argsort(places, kind="stable")
    ends = np.cumsum(lengths[order], dtype=np.int64)
    parts = np.empty(len(places), np.int64)
    # Of the middle of each structure, so that a cut goes to the nearer side; in integers, the same on every machine.
    parts[order] = (2 * ends - lengths[order]) * count // (2 * ends[-1])
    return parts


def parts_of_neighbours(places: np.ndarray, known_places: np.ndarray, known_parts: np.ndarray) -> np.ndarray:
    """(rows,) the part of the structure, among the known ones, that comes before each one in the cache's files."""
    order = np.argsort(known_places, kind="stable")
    before = np.searchsorted(known_places[order], places, side="right") - 1
    return known_parts[order][np.maximum(before, 0)]


def rows_of_parts(parts: np.ndarray, count: int) -> list[np.ndarray]:
    """Rows of each part, in ascending order; none where a part is empty."""
    order = np.argsort(parts, kind="stable")
    return np.split(order, np.searchsorted(parts[order], np.arange(1, count)))
