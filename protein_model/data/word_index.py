"""Candidates of similarity among many sequences, in the way of BLASTP: two identical words on one diagonal, then the
best ungapped segment of that diagonal.

Whether candidates are similar is left to `similarity`, grouping to `clustering`.

Altschul, Gish, Miller, Myers & Lipman, J. Mol. Biol. 215, 403 (1990); Altschul et al., Nucleic Acids Res. 25, 3389
(1997).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from Bio.Align import substitution_matrices

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
UNKNOWN = "X"
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
PAD_SCORE = -1000  # a segment never reaches across the end of a sequence


class WordIndex:
    """Where every word of three residues stands in all sequences, sorted by length.

    All sequences lie in one array. In front of each there are as many pads as it has residues, and a query is no longer
    than what it is compared with, so (place of a word in the array) - (place in the query) is a place among these pads
    or residues: it names a sequence and a diagonal.

    Attributes
    ----------
    arrays : all that the index consists of; another process makes the same index of them
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        self.arrays = arrays
        self._residues, self._places = arrays["residues"], arrays["places"]
        self._ends = arrays["ends"]
        self._starts = self._ends - np.diff(self._ends, prepend=0) // 2
        self._last = np.cumsum(arrays["counts"])
        self._first = self._last - arrays["counts"]
        self._dropped = 0

    @classmethod
    def of(cls, sequences: Sequence[str]) -> WordIndex:
        """Index of one-letter sequences, the shortest first; letters but those of the 20 residue types are unknown."""
        codes = [_encode(sequence) for sequence in sequences]
        lengths = np.array([len(code) for code in codes], np.int64)
        ends = np.cumsum(2 * lengths)
        longest = int(lengths.max(initial=0))
        residues = np.full((int(ends[-1]) if codes else 0) + longest, PAD, np.uint8)
        for end, code in zip(ends.tolist(), codes, strict=True):
            residues[end - len(code) : end] = code
        words = _words(residues)
        places = np.flatnonzero(words >= 0)
        by_word = np.argsort(words[places], kind="stable")
        counts = np.bincount(words[places], minlength=len(LETTERS) ** WORD)
        return cls({"residues": residues, "ends": ends, "places": places[by_word].astype(np.int64), "counts": counts})

    def __len__(self) -> int:
        return len(self._ends)

    def sequence(self, number: int) -> str:
        """One of the sequences, with X for what is unknown."""
        return self._codes(number).tobytes().translate(_letters()).decode("ascii")

    def candidates(self, query: int, labels: np.ndarray) -> list[int]:
        """Sequences after a query that may be similar to it and have another label, the most similar first.

        Queries are asked for in ascending order, since each is dropped from the index with all before it.
        """
        for number in range(self._dropped, query + 1):
            words = _words(self._codes(number))
            np.add.at(self._first, words[words >= 0], 1)
        self._dropped = query + 1
        code = self._codes(query)
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
        apart = labels[owners] != labels[query]
        diagonals, owners = diagonals[apart], owners[apart]
        scores = self._segment_scores(code, diagonals)
        needed = min(MIN_SEGMENT_SCORE, SEGMENT_SCORE_PER_RESIDUE * len(code))
        good = scores >= needed
        best_first = np.argsort(-scores[good], kind="stable")
        return list(dict.fromkeys(owners[good][best_first].tolist()))

    def _codes(self, number: int) -> np.ndarray:
        return self._residues[self._starts[number] : self._ends[number]]

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
    letters = LETTERS + UNKNOWN
    scores = np.full((PAD + 1, PAD + 1), PAD_SCORE, np.int32)
    for row, first in enumerate(letters):
        for column, second in enumerate(letters):
            scores[row, column] = int(blosum[first, second])
    return scores


@lru_cache(maxsize=1)
def _letters() -> bytes:
    return (LETTERS + UNKNOWN).encode("ascii").ljust(256, UNKNOWN.encode("ascii"))


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
