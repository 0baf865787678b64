"""What is printed and drawn: every figure that there is, and nothing that there is not."""

from __future__ import annotations

import matplotlib.image
import numpy as np
import pytest

from protein_model.inference.evaluation import Evaluated, EvaluationSettings, evaluate_structures
from protein_model.inference.evaluation_plots import draw_report, draw_steps
from protein_model.inference.evaluation_report import build_report
from protein_model.inference.evaluation_tables import format_table, report_text, steps_text
from tests.inference.evaluation_cases import example, small_structures, sweep_steps, tiny_model

SETTINGS = EvaluationSettings(num_sequences=2, num_steps=3, num_orders=4)


@pytest.fixture(scope="module")
def report():
    return build_report(evaluate_structures(tiny_model(), small_structures(), SETTINGS), seed=0)


@pytest.fixture(scope="module")
def designs_only():
    structure = example("1orc.pdb.gz")
    return build_report([Evaluated(structure, designs=structure.residue_type[None])], seed=0)


def drawn_share(path) -> float:
    """Share of the pixels that are not background."""
    return float((matplotlib.image.imread(path)[..., :3].min(axis=2) < 0.95).mean())


def test_the_table_has_the_figures(report):
    text = report_text(report)
    summary = report.summary
    assert f"{summary.structures} structures, {summary.residues} scored residues" in text
    for estimate in (summary.one_shot_recovery.median, summary.sampled_recovery.by_residue):
        assert f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]" in text
    for estimate in (summary.one_shot_perplexity, summary.order_agnostic_perplexity):
        assert f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]" in text
    for rows in report.groups.values():
        for row in rows:
            assert f"{row.one_shot_perplexity.value:.2f}" in text and f"{row.residues}" in text
    assert "masked share, %" in text and "calibration error, order-agnostic" in text


def test_columns_without_figures_are_left_out(designs_only):
    text = report_text(designs_only)
    assert "sampled recovery, %" in text and "100.0" in text
    for absent in ("perplexity", "one-shot", "masked", "calibration", "score of"):
        assert absent not in text


def test_tables_are_in_line():
    lines = format_table([["name", "x"], ["a", "1.5"], ["longer", "12.5"]]).splitlines()
    assert lines == ["name       x", "------  ----", "a        1.5", "longer  12.5"]


def test_pictures(report, tmp_path):
    written = draw_report(tmp_path, report)
    assert [path.name for path in written] == ["recovery.png", "confusion.png", "calibration.png", "mask_rate.png"]
    for path in written:
        assert drawn_share(path) > 0.01


def test_pictures_of_designs_alone(designs_only, tmp_path):
    assert [path.name for path in draw_report(tmp_path, designs_only)] == ["recovery.png", "confusion.png"]


def test_steps(tmp_path):
    for options in ({}, {"diffusion_kernel": "uniform"}):
        rows = sweep_steps(tiny_model(**options), small_structures()[:2], SETTINGS, [1, 3, "L"])
        lines = steps_text(rows).splitlines()
        assert [line.split()[:2] for line in lines[2:]] == [[row.order, str(row.steps)] for row in rows]
        assert f"{100 * rows[1].recovery_mean.value:.1f}" in lines[3]
        assert drawn_share(draw_steps(tmp_path / "steps.png", rows)) > 0.01
        assert np.isfinite([row.score for row in rows]).all()
