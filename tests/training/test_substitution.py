"""BLOSUM62 as a Markov chain."""

import json

import numpy as np
import pytest
from Bio.Align import substitution_matrices

from protein_model.training.substitution import HALF_BIT, blosum62_transition_matrix, substitution_matrix_from_scores

LETTERS = "ACDEFGHIKLMNPQRSTVWY"


@pytest.fixture(scope="module")
def conditional() -> np.ndarray:
    return np.array(blosum62_transition_matrix())


def stationary_distribution(conditional: np.ndarray) -> np.ndarray:
    return np.linalg.matrix_power(conditional, 1000)[0]


def test_rows_sum_to_one_and_all_substitutions_are_possible(conditional):
    assert conditional.shape == (20, 20)
    np.testing.assert_allclose(conditional.sum(1), 1, atol=1e-14)
    assert (conditional > 0).all()


def test_detailed_balance(conditional):
    flow = stationary_distribution(conditional)[:, None] * conditional
    np.testing.assert_allclose(flow, flow.T, atol=1e-14)


def test_log_odds_give_the_scores_back(conditional):
    # Up to one constant for all pairs: integer scores fit frequencies that do not quite sum to one.
    blosum = substitution_matrices.load("BLOSUM62")
    scores = np.array([[blosum[a, b] for b in LETTERS] for a in LETTERS])
    odds = conditional / stationary_distribution(conditional)
    difference = np.log(odds) / HALF_BIT - scores
    np.testing.assert_allclose(difference, difference[0, 0], atol=1e-9)
    assert abs(difference[0, 0]) < 0.15


def test_likely_and_unlikely_substitutions(conditional):
    def probability(old, new):
        return conditional[LETTERS.index(old), LETTERS.index(new)]

    for old, likely, unlikely in [("I", "V", "D"), ("K", "R", "C"), ("F", "Y", "P"), ("D", "E", "L"), ("S", "T", "W")]:
        assert probability(old, likely) > 2 * probability(old, unlikely)


def test_common_and_rare_residue_types(conditional):
    frequency = dict(zip(LETTERS, stationary_distribution(conditional), strict=True))
    assert frequency["L"] == max(frequency.values())
    assert max(frequency["W"], frequency["C"], frequency["H"]) < min(frequency[letter] for letter in "AELGSV")


def test_plain_lists_that_json_keeps_exactly():
    matrix = blosum62_transition_matrix()
    assert json.loads(json.dumps(matrix)) == matrix


def test_scores_made_from_a_known_chain_give_that_chain():
    joint = np.array([[0.3, 0.05, 0.05], [0.05, 0.2, 0.1], [0.05, 0.1, 0.1]])
    frequencies = joint.sum(1)
    scores = np.log2(joint / np.outer(frequencies, frequencies))
    scores = (scores + scores.T) / 2
    expected = joint / frequencies[:, None]
    np.testing.assert_allclose(substitution_matrix_from_scores(scores, np.log(2)), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([[1.0, 0.0], [0.5, 1.0]], "symmetric"),
        ([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], "symmetric"),
        ([[1.0, 1.0], [1.0, 1.0]], "do not determine"),
        ([[3.0, 2.0], [2.0, 1.0]], "no positive"),
    ],
)
def test_scores_that_no_chain_has_are_refused(scores, message):
    with pytest.raises(ValueError, match=message):
        substitution_matrix_from_scores(scores, 1.0)
