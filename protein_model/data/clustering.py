"""Grouping sequences so that similar ones never come apart: single-linkage clusters.

Two sequences are linked if `word_index` finds them to be candidates and `similarity` that they are similar. Aligning
all pairs is out of reach for tens of thousands of sequences. Splitting the data is left to `splits`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import numpy as np

from .clustering_workers import links_by_workers
from .linkage import Labels, new_links
from .subprocesses import available_processors
from .word_index import WordIndex

# A process needs half a second to start, in which it could compare this many sequences with a few thousand others.
SEQUENCES_PER_WORKER = 500


def cluster_sequences(
    sequences: Sequence[str], on_sequence: Callable[[], None] = lambda: None, num_workers: int | None = None
) -> np.ndarray:
    """Single-linkage clusters of similar sequences.

    Parameters
    ----------
    sequences : one-letter protein sequences, any order
    on_sequence : called once for each of the distinct sequences, as they are compared with the others; it may raise an
        error to end the work
    num_workers : processes that compare; None for as many as there are processors and work for, 1 for this one alone

    Returns
    -------
    (sequences,) int64, number of the cluster of each one; the grouping depends neither on the order of the sequences
    nor on the number of processes

    Raises
    ------
    SplitError : a process that compares was killed or cannot run
    """
    unique = sorted(set(sequences), key=lambda sequence: (len(sequence), sequence))
    if num_workers is None:
        num_workers = min(available_processors(), len(unique) // SEQUENCES_PER_WORKER)
    index, labels = WordIndex.of(unique), Labels(len(unique))
    if num_workers > 1:
        with contextlib.closing(links_by_workers(index, num_workers)) as found:  # ends them, whatever happens here
            for links in found:
                on_sequence()
                for link in links:
                    labels.join(*link)
    else:
        for query in range(len(unique)):
            on_sequence()
            new_links(index, query, labels)
    number = {sequence: int(label) for sequence, label in zip(unique, labels.of, strict=True)}
    _, compact = np.unique([number[sequence] for sequence in sequences], return_inverse=True)
    return compact.astype(np.int64)
