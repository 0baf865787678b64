"""Candidates of similarity against the best ungapped segment of every diagonal, found one by one."""

from __future__ import annotations

import numpy as np
import pytest
from Bio.Align import substitution_matrices

from protein_model.data.word_index import MIN_SEGMENT_SCORE, ONE_WORD_LENGTH, WordIndex
from tests.data.sequences import family, random_sequence


def best_segment(first: str, second: str) -> int:
    """Best score of an ungapped segment of two sequences on a diagonal with two words of three identical residues."""
    blosum, best = substitution_matrices.load("BLOSUM62"), 0
    for shift in range(-len(first) + 1, len(second)):
        pairs = [(first[i], second[i + shift]) for i in range(len(first)) if 0 <= i + shift < len(second)]
        equal = [one == two != "X" for one, two in pairs]
        words = sum(all(equal[place : place + 3]) for place in range(len(equal) - 2))
        if words < (2 if len(first) >= ONE_WORD_LENGTH else 1):
            continue
        ending_here = 0
        for pair in pairs:
            ending_here = max(0, ending_here + int(blosum[pair]))
            best = max(best, ending_here)
    return best


@pytest.fixture(scope="module")
def sequences() -> list[str]:
    generator = np.random.default_rng(0)
    parents = [random_sequence(generator, length) for length in (60, 70, 110, 130)]
    parents[1] = parents[1][:20] + "XX" + parents[1][22:]
    members = [member for parent in parents for member in [parent, *family(generator, parent, 4)]]
    return sorted(set(members), key=lambda sequence: (len(sequence), sequence))


def test_candidates_are_those_with_a_good_segment_and_the_best_comes_first(sequences):
    index, labels = WordIndex.of(sequences), np.arange(len(sequences))
    for query, sequence in enumerate(sequences):
        scores = {other: best_segment(sequence, sequences[other]) for other in range(query + 1, len(sequences))}
        needed = min(MIN_SEGMENT_SCORE, len(sequence))
        candidates = index.candidates(query, labels)
        assert set(candidates) == {other for other, score in scores.items() if score >= needed}
        found = [scores[other] for other in candidates]
        assert found == sorted(found, reverse=True)


def test_what_has_the_label_of_the_query_is_no_candidate(sequences):
    index, labels = WordIndex.of(sequences), np.arange(len(sequences))
    [other, *rest] = WordIndex.of(sequences).candidates(0, labels)
    labels[other] = labels[0]
    assert index.candidates(0, labels) == rest


def test_queries_may_be_left_out(sequences):
    labels = np.arange(len(sequences))
    all_of_them, some = WordIndex.of(sequences), WordIndex.of(sequences)
    expected = [all_of_them.candidates(query, labels) for query in range(len(sequences))]
    for query in (0, 3, 4, len(sequences) - 2):
        assert some.candidates(query, labels) == expected[query]


def test_an_index_is_made_again_of_its_arrays(sequences):
    index = WordIndex.of(sequences)
    again = WordIndex({name: array.copy() for name, array in index.arrays.items()})
    assert len(again) == len(sequences)
    assert [again.sequence(number) for number in range(len(again))] == sequences
    labels = np.arange(len(sequences))
    assert all(again.candidates(query, labels) == index.candidates(query, labels) for query in range(len(sequences)))


def test_other_letters_are_unknown_residues():
    assert WordIndex.of(["ACB", "aCUé"]).sequence(0) == "ACX"
    assert WordIndex.of(["ACB", "aCUé"]).sequence(1) == "XCXX"
    assert len(WordIndex.of([])) == 0
