"""Likelihoods against their definitions, computed with the model's own forward pass; mutations; what is refused."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from protein_model.inference.constraints import ConstraintError, Constraints
from protein_model.inference.evaluation import EvaluationSettings, evaluate_structures
from protein_model.inference.inputs import backbone_batch
from protein_model.inference.native_likelihood import order_agnostic_nll
from protein_model.inference.scoring import ScoringError, score, score_types
from protein_model.structures import encode_sequence, sequence_of
from tests.inference.backbones import made_structure, numbered
from tests.inference.evaluation_cases import example, small_structures, tiny_model, with_sequence


def log_probabilities(model, structure, tokens: np.ndarray, level: float) -> np.ndarray:
    """(L, 20) from the forward pass of training."""
    with torch.no_grad():
        encoded = backbone_batch([structure], torch.device("cpu")).encode(model)
        logits = model.decode(encoded, torch.from_numpy(tokens.astype(np.int64)), torch.tensor([level]).float())
    return logits.double().log_softmax(-1).numpy()


def test_one_shot():
    model, structure = tiny_model(), small_structures()[0]
    result = score(model, structure, likelihood="one_shot")
    expected = log_probabilities(model, structure, np.full(len(structure), 20), 1.0)
    known = structure.backbone_complete & (structure.residue_type < 20)
    own = expected[known, structure.residue_type[known]]
    np.testing.assert_array_equal(result.scored[0], known)
    np.testing.assert_allclose(result.log_probability[0, known], own, atol=1e-5)
    assert np.isnan(result.log_probability[0, ~known]).all()
    assert result.total[0] == pytest.approx(own.sum()) and result.standard_error[0] == 0 and result.draws == 0
    assert result.score[0] == pytest.approx(-own.mean()) and result.perplexity[0] == pytest.approx(np.exp(-own.mean()))
    np.testing.assert_allclose(result.probabilities[0, known], np.exp(expected[known]), atol=1e-5)
    np.testing.assert_allclose(result.log_ratios[0, known], expected[known] - own[:, None], atol=1e-5)


def test_conditional():
    """Each residue is predicted from all others, and is not seen itself."""
    model, structure = tiny_model(), example("5PTI.cif.gz").take(np.arange(14))
    result = score(model, structure, likelihood="conditional")
    for row in range(14):
        tokens = structure.residue_type.copy()
        tokens[row] = 20
        expected = log_probabilities(model, structure, tokens, 1 / 14)[row]
        np.testing.assert_allclose(result.probabilities[0, row], np.exp(expected), atol=1e-5)
        own = expected[structure.residue_type[row]]
        np.testing.assert_allclose(result.log_ratios[0, row], expected - own, atol=1e-5)
        assert result.log_probability[0, row] == pytest.approx(own, abs=1e-5)
    assert result.total[0] == pytest.approx(result.log_probability[0].sum())


def test_order_agnostic_is_the_mean_over_all_orders():
    """Four residues: all 24 orders of decoding one by one, enumerated."""
    model, structure = tiny_model(), made_structure({"A": numbered(1, 4)})
    orders = list(permutations(range(4)))
    exact = 0.0
    by_residue = np.zeros(4)
    for order in orders:
        tokens = np.full(4, 20)
        for done, row in enumerate(order):
            nats = log_probabilities(model, structure, tokens, 1 - done / 4)[row, structure.residue_type[row]]
            exact += nats / len(orders)
            by_residue[row] += nats / len(orders)
            tokens[row] = structure.residue_type[row]
    result = score(model, structure, likelihood="order_agnostic", num_draws=12000)
    assert 0 < result.standard_error[0] < 0.05
    assert abs(result.total[0] - exact) < 4 * result.standard_error[0]
    np.testing.assert_allclose(result.log_probability[0], by_residue, atol=0.1)


def test_order_agnostic_equals_that_of_the_evaluation():
    model = tiny_model()
    for structure in small_structures():
        result = score(model, structure, num_draws=8, seed=3)
        [found] = evaluate_structures(model, [structure], EvaluationSettings(num_sequences=0, num_orders=8, seed=3))
        nll, error = order_agnostic_nll(found.order_agnostic)
        assert result.total[0] == pytest.approx(-nll, rel=1e-5)
        assert result.standard_error[0] == pytest.approx(error, rel=1e-4)


def test_residues_that_no_draw_masks_have_their_one_shot_value():
    model, structure = tiny_model(), example("pdb1ubi.pdb.gz")
    result = score(model, structure, num_draws=1)
    one_shot = score(model, structure, likelihood="one_shot")
    assert np.isfinite(result.log_probability[0]).all() and np.isnan(result.standard_error[0])
    assert np.isclose(result.log_probability[0], one_shot.log_probability[0], atol=1e-6).any()


def test_sequences_are_scored_independently_on_the_same_masks():
    model, structure = tiny_model(), example("5PTI.cif.gz")
    sequences = [sequence_of(with_sequence(structure, seed).residue_type) for seed in range(3)]
    together = score(model, structure, sequences)
    assert together.sequences == sequences and len(together) == 3
    for index, sequence in enumerate(sequences):
        alone = score(model, structure, [sequence])
        assert alone.total[0] == together.total[index]
    likewise = score(model, structure, [sequences[0], sequences[0]])
    assert likewise.total[0] == likewise.total[1]


def test_the_native_sequence_does_not_matter_for_a_given_one():
    model, structure = tiny_model(), example("5PTI.cif.gz")
    sequence = ["ACDEFGHIKLMNPQRSTVWY" * 2 + "ACDEFGHIKLMNPQRSTV"]
    first, second = (score(model, one, sequence) for one in (structure, with_sequence(structure, 5)))
    np.testing.assert_array_equal(first.log_probability, second.log_probability)


def test_fixed_residues_are_shown_and_not_scored():
    model, structure = tiny_model(), made_structure({"A": numbered(1, 6), "B": numbered(1, 5)})
    result = score(model, structure, likelihood="one_shot", constraints=Constraints(fixed="B"))
    tokens = structure.residue_type.copy()
    tokens[:6] = 20
    expected = log_probabilities(model, structure, tokens, 6 / 11)[:6]
    np.testing.assert_allclose(result.probabilities[0, :6], np.exp(expected), atol=1e-5)
    assert not result.scored[0, 6:].any() and result.scored[0, :6].all()
    same = score(model, structure, likelihood="one_shot", constraints=Constraints(designed="A"))
    np.testing.assert_array_equal(same.total, result.total)
    alone = score(model, structure, likelihood="one_shot", constraints=Constraints(excluded="B"))
    np.testing.assert_allclose(alone.total, score(model, structure.chain("A"), likelihood="one_shot").total, rtol=1e-5)


def test_given_sequences():
    structure = made_structure({"A": numbered(1, 4), "B": numbered(1, 3)})
    result = score(tiny_model(), structure, ["AC-E/FGH", "ACDE:FXH"], likelihood="one_shot")
    assert result.residue_type.tolist() == [[0, 1, 20, 3, 4, 5, 6], [0, 1, 2, 3, 4, 20, 6]]
    assert result.scored.sum(axis=1).tolist() == [6, 6]


def test_nothing_to_score():
    structure = made_structure({"A": numbered(1, 4)})
    result = score(tiny_model(), structure, ["XXXX"])
    assert result.total[0] == 0 and np.isnan(result.score[0]) and np.isnan(result.log_probability).all()


def test_refused():
    structure = made_structure({"A": numbered(1, 4), "B": numbered(1, 3)})
    model = tiny_model()
    for sequences, message in (
        (["ACDE"], "sequence 1 has 1 chain where the structure has 2"),
        (["ACDE/FGH", "ACD/FGH"], "sequence 2 has 3 letters for chain 'A' of 4 residues"),
        (["AC?E/FGH"], "sequence 1 cannot be read"),
        ([], "no sequence to score"),
    ):
        with pytest.raises(ScoringError, match=message):
            score(model, structure, sequences)
    with pytest.raises(ScoringError, match="order_agnostic, one_shot, conditional"):
        score(model, structure, likelihood="best")
    with pytest.raises(ScoringError, match="at least 1"):
        score(model, structure, num_draws=0)
    with pytest.raises(ScoringError, match="only fixed, designed and excluded"):
        score(model, structure, constraints=Constraints(omit="C"))
    with pytest.raises(ConstraintError, match="nearest"):
        score(model, structure, constraints=Constraints(fixed="a1"))


@pytest.mark.parametrize("options", [{"diffusion_kernel": "uniform"}, {"use_discrete_diffusion": False}])
def test_models_that_cannot_be_shown_a_part_of_a_sequence(options):
    model, structure = tiny_model(**options), made_structure({"A": numbered(1, 4)})
    assert score(model, structure).likelihood == "one_shot"
    with pytest.raises(ScoringError, match="absorbing"):
        score(model, structure, likelihood="conditional")


def test_types_and_letters_are_the_same():
    model, structure = tiny_model(), made_structure({"A": numbered(1, 9)})
    letters = "ACDEFGHIK"
    first = score(model, structure, [letters])
    second = score_types(model, structure, encode_sequence(letters)[None])
    np.testing.assert_array_equal(first.log_ratios, second.log_ratios)
    own = np.take_along_axis(first.log_ratios[0], second.residue_type[0].astype(int)[:, None], axis=1)
    assert (own == 0).all() and first.probabilities[0].sum(axis=1) == pytest.approx(np.ones(9))
