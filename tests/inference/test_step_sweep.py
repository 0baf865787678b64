"""Recovery and perplexity by the number of steps."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from protein_model.inference.evaluation import EvaluationError, EvaluationSettings, evaluate_structures
from protein_model.inference.evaluation_report import build_report
from protein_model.inference.orders import ORDERS
from protein_model.inference.sampling import SamplingError
from protein_model.inference.step_sweep import parse_orders, parse_step_counts
from tests.inference.evaluation_cases import small_structures, stretch, sweep_steps, tiny_model

SETTINGS = EvaluationSettings(num_sequences=2, num_orders=4)


def test_a_row_is_what_the_evaluation_gives_at_that_number_of_steps():
    model, structures = tiny_model(), small_structures()
    rows = sweep_steps(model, structures, SETTINGS, [1, 5])
    for row, steps in zip(rows, (1, 5), strict=True):
        settings = EvaluationSettings(num_sequences=2, num_orders=4, num_steps=steps)
        summary = build_report(evaluate_structures(model, structures, settings), seed=0).summary
        assert row.steps == steps
        assert row.recovery_median == pytest.approx(summary.sampled_recovery.median)
        assert row.recovery_mean == pytest.approx(summary.sampled_recovery.mean)
        assert row.recovery_by_residue == pytest.approx(summary.sampled_recovery.by_residue)
        assert row.score == pytest.approx(summary.sampled_score.value)
        assert row.residues_per_second == pytest.approx(2 * sum(map(len, structures)) / row.seconds)
    assert rows[0].native_perplexity == pytest.approx(summary.one_shot_perplexity, rel=1e-4)
    assert rows[1].native_perplexity != rows[0].native_perplexity


def test_one_step_per_residue():
    model, structures = tiny_model(), [stretch(structure, 10, 12) for structure in small_structures()[1:3]]
    [row] = sweep_steps(model, structures, SETTINGS, ["L"])
    [twelve] = sweep_steps(model, structures, SETTINGS, [12])
    assert row.steps == "L" and row.order == "margin"
    assert row.recovery_mean == pytest.approx(twelve.recovery_mean)
    summary = build_report(evaluate_structures(model, structures, SETTINGS), seed=0).summary
    assert row.native_perplexity == pytest.approx(summary.order_agnostic_perplexity)


def test_without_absorbing_diffusion_there_is_no_stepwise_perplexity():
    [row] = sweep_steps(tiny_model(diffusion_kernel="uniform"), small_structures()[:2], SETTINGS, [3])
    assert row.native_perplexity is None and 0 <= row.recovery_mean.value <= 1 and math.isfinite(row.score)


def test_orders():
    """Each with each number of steps; at one step all residues are chosen at once, in whatever order."""
    model, structures = tiny_model(), small_structures()
    rows = sweep_steps(model, structures, SETTINGS, [1, 5], ORDERS)
    assert [(row.order, row.steps) for row in rows] == [(order, steps) for order in ORDERS for steps in (1, 5)]
    for row in rows:
        settings = replace(SETTINGS, num_steps=row.steps, order=row.order)
        summary = build_report(evaluate_structures(model, structures, settings), seed=0).summary
        assert row.recovery_mean == pytest.approx(summary.sampled_recovery.mean)
    by_steps = [[row.score for row in rows if row.steps == steps] for steps in (1, 5)]
    assert by_steps[0] == pytest.approx([by_steps[0][0]] * 4)
    assert len(set(by_steps[1])) == 4
    natives = [row.native_perplexity for row in rows if row.steps == 5]
    assert natives == [natives[0]] * 4


def test_a_model_of_one_pass_has_one_way_to_sample():
    model, structures = tiny_model(use_discrete_diffusion=False), small_structures()[:2]
    [row] = sweep_steps(model, structures, SETTINGS, [1, 5, "L"])
    assert (row.steps, row.order) == (1, "ancestral")
    with pytest.raises(SamplingError, match="absorbing"):
        sweep_steps(model, structures, SETTINGS, [5], ["margin"])


def test_reading_the_options():
    assert parse_orders("margin, random,margin") == ["margin", "random"]
    with pytest.raises(EvaluationError, match="there is no order 'backwards'"):
        parse_orders("random,backwards")
    assert parse_step_counts("1,4, 8,L") == [1, 4, 8, "L"]
    assert parse_step_counts("l,4,4") == ["L", 4]
    for wrong in ("0", "4,,8", "-1", "4;8", "1.5", ""):
        with pytest.raises(EvaluationError, match="is neither a number of steps nor L"):
            parse_step_counts(wrong)


def test_more_steps_find_structures_in_the_same_places():
    """The seed belongs to the structure: sampling one alone gives what it gives beside others."""
    model, structures = tiny_model(), small_structures()
    together = sweep_steps(model, structures, SETTINGS, [4])[0]
    apart = [sweep_steps(model, [structure], SETTINGS, [4])[0].recovery_mean.value for structure in structures]
    assert np.mean(apart) == pytest.approx(together.recovery_mean.value, abs=0.01)
