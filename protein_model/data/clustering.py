"""Grouping sequences so that similar ones never come apart: single-linkage clusters by local alignment.

Two sequences are linked if their local alignment (BLOSUM62, gaps 11 + 1 per residue, Biopython's `PairwiseAligner`) has
at least `MIN_IDENTITY` identical residues over at least `MIN_COVERAGE` of the shorter one. Aligning all pairs is out of
reach for tens of thousands of sequences, so pairs are first looked for in the way of BLASTP: two identical words on one
diagonal, then the best ungapped segment of that diagonal. Splitting the data is left to `splits`.

Altschul, Gish, Miller, Myers & Lipman, J. Mol. Biol. 215, 403 (1990); Altschul et al., Nucleic Acids Res. 25, 3389
(1997).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from Bio.Align import PairwiseAligner, substitution_matrices

# A split by cluster is to keep chains of at least 50 % identity over 80 % of the shorter one together. The limits are
# lower, because an alignment of such a pair does not end exactly where the similarity does. Alignments of a low score
# come about by chance, and short chains would tie unrelated ones together by them (by the Karlin-Altschul statistics of
# this matrix, 30 residues find among a million others one of 52); with a score below `MIN_SCORE` a pair must be nearer.
MIN_IDENTITY, MIN_COVERAGE = 0.4, 0.7
MIN_SCORE = 60
NEAR_IDENTITY, NEAR_COVERAGE = 0.8, 0.8

GAP_OPEN, GAP_EXTEND = 11, 1
LETTERS = "ACDEFGHIKLMNPQRSTVWY"
OTHER, PAD = len(LETTERS), len(LETTERS) + 1
WORD = 3
# What follows decides how many pairs are aligned at all. Measured on 3,000 mutants of 20 to 150 residues with up to 3
# insertions or deletions, of at least 50 % identity over 80 %: from 50 residues on, all of at least 70 % identity and
# 99 % of the others end in one cluster; of shorter ones, all of at least 80 % identity.
ONE_WORD_LENGTH = 100  # below, two exact words on one diagonal are not to be relied on, and one is enough
# Ungapped score that is worth an alignment; about one pair in 300 reaches it. Short chains cannot, so they are asked
# for less, in proportion to their length.
MIN_SEGMENT_SCORE = 50
SEGMENT_SCORE_PER_RESIDUE = 1.0
SCORE_PER_RESIDUE = 0.7  # of the gapped alignment and the shorter one; pairs of 50 % identity over 80 % have 0.8
PAD_SCORE = -1000  # a segment never reaches across the end of a sequence


def cluster_sequences(sequences: Sequence[str], on_sequence: Callable[[], None] = lambda: None) -> np.ndarray:
    """Single-linkage clusters of similar sequences.

    Parameters
    ----------
    sequences : one-letter protein sequences, any order
    on_sequence : called for each of the distinct sequences, before it is compared with the others; it may raise an
        error to end the work

    Returns
    -------
    (sequences,) int64, number of the cluster of each one; the grouping does not depend on the order of the sequences
    """
    unique = sorted(set(sequences), key=lambda sequence: (len(sequence), sequence))
    labels = _Labels(len(unique))
    index = _WordIndex(unique)
    for query in range(len(unique)):
        on_sequence()
        index.drop(query)
        for other in index.candidates(query, labels):
            if not labels.joined(query, other) and _similar(unique[query], unique[other]):
                labels.join(query, other)
    number = {sequence: int(label) for sequence, label in zip(unique, labels.of, strict=True)}
    _, compact = np.unique([number[sequence] for sequence in sequences], return_inverse=True)
    return compact.astype(np.int64)


class _Labels:
    """Disjoint sets as one array of labels, so that many members can be compared at once."""

    def __init__(self, count: int):
        self.of = np.arange(count)
        self._members = [[member] for member in range(count)]

    def joined(self, first: int, second: int) -> bool:
        return bool(self.of[first] == self.of[second])

    def join(self, first: int, second: int) -> None:
        small, large = sorted((int(self.of[first]), int(self.of[second])), key=lambda label: len(self._members[label]))
        self.of[self._members[small]] = large
        self._members[large] += self._members[small]
        self._members[small] = []


class _WordIndex:
    """Where every word of three residues stands in all sequences, sorted by length.

    All sequences lie in one array. In front of each there are as many pads as it has residues, and a query is no longer
    than what it is compared with, so (place of a word in the array) - (place in the query) is a place among these pads
    or residues: it names a sequence and a diagonal.
    """

    def __init__(self, sequences: Sequence[str]):
        codes = [_encode(sequence) for sequence in sequences]
        lengths = np.array([len(code) for code in codes])
        self._codes = codes
        self._ends = np.cumsum(2 * lengths)
        self._starts = self._ends - lengths
        longest = int(lengths.max(initial=0))
        self._residues = np.full((self._ends[-1] if len(codes) else 0) + longest, PAD, np.uint8)
        for start, code in zip(self._starts, codes, strict=True):
            self._residues[start : start + len(code)] = code
        words = _words(self._residues)
        places = np.flatnonzero(words >= 0)
        by_word = np.argsort(words[places], kind="stable")
        self._places = places[by_word].astype(np.int64)
        counts = np.bincount(words[places], minlength=len(LETTERS) ** WORD)
        self._last = np.cumsum(counts)
        self._first = self._last - counts

    def drop(self, query: int) -> None:
        """Take a sequence out of the index. Sequences are dropped in order, the shortest first."""
        words = _words(self._codes[query])
        np.add.at(self._first, words[words >= 0], 1)

    def candidates(self, query: int, labels: _Labels) -> list[int]:
        """Sequences in the index that may be similar to a query and are not in its cluster, the most similar first."""
        code = self._codes[query]
        words = _words(code)
        offsets = np.flatnonzero(words >= 0)
        if not len(offsets):
            return []
        firsts, lasts = self._first[words[offsets]], self._last[words[offsets]]
        hits = np.concatenate(
            [
                self._places[first:last] - offset
                for offset, first, last in zip(offsets.tolist(), firsts.tolist(), lasts.tolist(), strict=True)
            ]
        )
        diagonals = np.sort(hits)
        if len(code) >= ONE_WORD_LENGTH:
            diagonals = diagonals[1:][diagonals[1:] == diagonals[:-1]]
        diagonals = diagonals[np.concatenate([[True], diagonals[1:] != diagonals[:-1]])[: len(diagonals)]]
        owners = np.searchsorted(self._ends, diagonals, side="right")
        apart = labels.of[owners] != labels.of[query]
        diagonals, owners = diagonals[apart], owners[apart]
        scores = self._segment_scores(code, diagonals)
        needed = min(MIN_SEGMENT_SCORE, SEGMENT_SCORE_PER_RESIDUE * len(code))
        good = scores >= needed
        best_first = np.argsort(-scores[good], kind="stable")
        return list(dict.fromkeys(owners[good][best_first].tolist()))

    def _segment_scores(self, code: np.ndarray, diagonals: np.ndarray) -> np.ndarray:
        """(diagonals,) best score of an ungapped segment of each diagonal."""
        places = diagonals.copy()
        ending_here = np.zeros(len(diagonals), np.int32)  # best score of a segment that ends at this residue
        best = np.zeros(len(diagonals), np.int32)
        residues = np.empty(len(diagonals), np.uint8)
        gained = np.empty(len(diagonals), np.int32)
        # Residue by residue, over all diagonals at once: four times as fast as cumulative sums over a table of both.
        for scores in _scores()[code]:
            self._residues.take(places, out=residues, mode="clip")
            scores.take(residues, out=gained, mode="clip")
            ending_here += gained
            np.maximum(ending_here, 0, out=ending_here)
            np.maximum(best, ending_here, out=best)
            places += 1
        return best


@lru_cache(maxsize=1)
def _scores() -> np.ndarray:
    """(22, 22) int32, BLOSUM62 with X and pads."""
    blosum = substitution_matrices.load("BLOSUM62")
    letters = LETTERS + "X"
    scores = np.full((PAD + 1, PAD + 1), PAD_SCORE, np.int32)
    for row, first in enumerate(letters):
        for column, second in enumerate(letters):
            scores[row, column] = int(blosum[first, second])
    return scores


@lru_cache(maxsize=1)
def _aligner() -> PairwiseAligner:
    return PairwiseAligner(
        mode="local",
        substitution_matrix=substitution_matrices.load("BLOSUM62"),
        open_gap_score=-GAP_OPEN - GAP_EXTEND,
        extend_gap_score=-GAP_EXTEND,
    )


def _encode(sequence: str) -> np.ndarray:
    table = np.full(256, OTHER, np.uint8)
    table[np.frombuffer(LETTERS.encode(), np.uint8)] = np.arange(len(LETTERS))
    return table[np.frombuffer(sequence.encode("ascii", "replace"), np.uint8)]


def _words(codes: np.ndarray) -> np.ndarray:
    """Number of the word that begins at each residue, -1 where it is not made of three of the 20 residue types."""
    if len(codes) < WORD:
        return np.empty(0, np.int32)
    parts = [codes[offset : len(codes) - WORD + 1 + offset].astype(np.int32) for offset in range(WORD)]
    words = np.zeros(len(parts[0]), np.int32)
    known = np.ones(len(parts[0]), bool)
    for part in parts:
        words = words * len(LETTERS) + part
        known &= part < len(LETTERS)
    return np.where(known, words, -1)


def _similar(shorter: str, longer: str) -> bool:
    """Is the local alignment good enough to link two sequences?"""
    score = _aligner().score(shorter, longer) if shorter else 0
    if score < SCORE_PER_RESIDUE * len(shorter):
        return False  # before the traceback, which takes twice as long
    counts = _aligner().align(shorter, longer)[0].counts()
    aligned = counts.identities + counts.mismatches
    identity, coverage = counts.identities / aligned, aligned / len(shorter)
    if score < MIN_SCORE:
        return identity >= NEAR_IDENTITY and coverage >= NEAR_COVERAGE
    return identity >= MIN_IDENTITY and coverage >= MIN_COVERAGE
