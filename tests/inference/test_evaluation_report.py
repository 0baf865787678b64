"""Every figure of a report against loops over residues."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from protein_model.inference.evaluation import Evaluated, EvaluationSettings, evaluate_structures
from protein_model.inference.evaluation_report import build_report, plain
from protein_model.inference.metrics import Estimate, scored_residues
from protein_model.structures.burial import neighbour_count
from protein_model.structures.secondary_structure import secondary_structure
from tests.inference.evaluation_cases import example, small_structures, tiny_model


@pytest.fixture(scope="module")
def entries():
    structures = [*small_structures(), example("2cviA.pdb.gz"), example("pdb1ake.pdb.gz")]
    settings = EvaluationSettings(num_sequences=3, num_steps=4, num_orders=6)
    return evaluate_structures(tiny_model(), structures, settings)


@pytest.fixture(scope="module")
def report(entries):
    return build_report(entries, seed=0)


def residues(entries):
    """(entry, row) of every scored residue."""
    return [(entry, row) for entry in entries for row in np.flatnonzero(scored_residues(entry.structure)).tolist()]


def figures_of(members):
    """One-shot perplexity and recovery, order-agnostic perplexity and sampled recovery over residues, by loops."""
    one_shot = right = order_agnostic = sampled = 0.0
    for entry, row in members:
        native = entry.structure.residue_type[row]
        one_shot += entry.one_shot.nll[0, row]
        right += entry.one_shot.predicted[0, row] == native
        sampled += np.mean([design[row] == native for design in entry.designs])
        masked = entry.order_agnostic
        draws = [
            masked.scored / masked.masked[draw].sum() * masked.nll[draw, row]
            for draw in range(len(masked.masked))
            if masked.masked[draw, row]
        ]
        order_agnostic += sum(draws) / len(masked.masked)
    count = len(members)
    return (
        count,
        math.exp(one_shot / count),
        right / count,
        math.exp(order_agnostic / count),
        sampled / count,
    )


def row_figures(row):
    return (
        row.residues,
        row.one_shot_perplexity.value,
        row.one_shot_recovery.value,
        row.order_agnostic_perplexity.value,
        row.sampled_recovery.value,
    )


def test_the_whole_set(entries, report):
    everything = figures_of(residues(entries))
    summary = report.summary
    assert summary.structures == 6
    assert (
        summary.residues,
        summary.one_shot_perplexity.value,
        summary.one_shot_recovery.by_residue.value,
        summary.order_agnostic_perplexity.value,
        summary.sampled_recovery.by_residue.value,
    ) == pytest.approx(everything, rel=1e-4)
    per_structure = [figures_of(residues([entry])) for entry in entries]
    for figures, own in zip(per_structure, report.structures, strict=True):
        assert own.one_shot_recovery == pytest.approx(figures[2])
        assert own.sampled_recovery == pytest.approx(figures[4])
        assert math.exp(own.one_shot_nll / own.residues) == pytest.approx(figures[1], rel=1e-4)
        assert math.exp(own.order_agnostic_nll / own.residues) == pytest.approx(figures[3], rel=1e-4)
    assert summary.one_shot_recovery.median.value == pytest.approx(np.median([one[2] for one in per_structure]))
    assert summary.sampled_recovery.mean.value == pytest.approx(np.mean([one[4] for one in per_structure]))
    errors = [own.order_agnostic_standard_error for own in report.structures]
    expected = everything[3] * math.sqrt(sum(error**2 for error in errors)) / everything[0]
    assert summary.order_agnostic_standard_error == pytest.approx(expected, rel=1e-4)
    for estimate in (summary.one_shot_perplexity, summary.one_shot_recovery.median, summary.sampled_recovery.mean):
        assert estimate.low <= estimate.value <= estimate.high


def label_of(kind, entry, row):
    structure = entry.structure
    if kind == "length":
        bounds = (("1-100", 100), ("101-200", 200), ("201-300", 300), ("301-500", 500))
        return next((name for name, bound in bounds if len(structure) <= bound), "501 and more")
    if kind == "burial":
        bounds = (("0-9", 9), ("10-14", 14), ("15-19", 19), ("20-24", 24))
        return next((name for name, bound in bounds if neighbour_count(structure)[row] <= bound), "25 and more")
    if kind == "secondary structure":
        return ("helix", "strand", "coil")[secondary_structure(structure)[row]]
    return "ACDEFGHIKLMNPQRSTVWY"[structure.residue_type[row]]


@pytest.mark.parametrize("kind", ["length", "burial", "secondary structure", "residue type"])
def test_groups_of_residues(entries, report, kind):
    members: dict[str, list] = {}
    for entry, row in residues(entries):
        members.setdefault(label_of(kind, entry, row), []).append((entry, row))
    rows = {row.group: row for row in report.groups[kind]}
    assert rows.keys() == members.keys()
    assert len(rows) >= 3
    for name, own in members.items():
        assert row_figures(rows[name]) == pytest.approx(figures_of(own), rel=1e-4)
        assert rows[name].structures == len({entry.structure.name for entry, _ in own})


def test_confusion(entries, report):
    one_shot, sampled = np.zeros((20, 21), int), np.zeros((20, 21), int)
    for entry, row in residues(entries):
        native = entry.structure.residue_type[row]
        one_shot[native, entry.one_shot.predicted[0, row]] += 1
        for design in entry.designs:
            sampled[native, design[row]] += 1
    assert np.array_equal(report.one_shot_confusion, one_shot)
    assert np.array_equal(report.sampled_confusion, sampled)
    assert np.trace(one_shot[:, :20]) / one_shot.sum() == pytest.approx(
        report.summary.one_shot_recovery.by_residue.value
    )


def test_mask_rate(entries, report):
    bins: dict[int, list] = {}
    for entry in entries:
        masked = entry.order_agnostic
        for draw, mask in enumerate(masked.masked):
            index = math.ceil(10 * mask.sum() / masked.scored - 1e-9) - 1
            bins.setdefault(index, []).append((entry, draw))
    assert [round(10 * row.low) for row in report.mask_rate] == sorted(bins)
    for row in report.mask_rate:
        nll, right, count = 0.0, 0, 0
        for entry, draw in bins[round(10 * row.low)]:
            for place in np.flatnonzero(entry.order_agnostic.masked[draw]):
                nll += entry.order_agnostic.nll[draw, place]
                right += entry.order_agnostic.predicted[draw, place] == entry.structure.residue_type[place]
                count += 1
        assert (row.nll, row.recovery, row.residues) == pytest.approx((nll / count, right / count, count), rel=1e-4)
        assert row.draws == len(bins[round(10 * row.low)])


def test_calibration_looks_at_every_prediction(entries, report):
    assert report.one_shot_calibration.count.sum() == report.summary.residues
    masked = sum(int(entry.order_agnostic.masked.sum()) for entry in entries)
    assert report.order_agnostic_calibration.count.sum() == masked
    right = np.nansum(report.one_shot_calibration.accuracy * report.one_shot_calibration.count)
    assert right / report.summary.residues == pytest.approx(report.summary.one_shot_recovery.by_residue.value)


def test_a_structure_without_a_scored_residue_is_listed_and_counts_for_nothing(entries, report):
    structure = replace(entries[0].structure, residue_type=np.full(len(entries[0].structure), 20, np.int8))
    [empty] = evaluate_structures(tiny_model(), [structure], EvaluationSettings(num_sequences=3, num_orders=6))
    longer = build_report([*entries, empty], seed=0)
    assert longer.summary == report.summary and longer.groups == report.groups
    assert longer.structures[-1].residues == 0 and longer.structures[-1].one_shot_recovery is None


def test_what_was_not_measured_is_left_out():
    structure = example("1orc.pdb.gz")
    report = build_report([Evaluated(structure, designs=structure.residue_type[None])], seed=0)
    assert report.summary.sampled_recovery.median == Estimate(1.0, 1.0, 1.0)
    assert report.summary.one_shot_recovery is None and report.summary.order_agnostic_perplexity is None
    assert report.mask_rate == [] and report.one_shot_confusion is None and report.one_shot_calibration is None
    assert all(row.one_shot_perplexity is None for rows in report.groups.values() for row in rows)
    assert np.array_equal(report.sampled_confusion[:, :20], np.diag(np.bincount(structure.residue_type, minlength=20)))


def test_residues_that_were_not_designed_are_not_recovered():
    structure = example("1orc.pdb.gz")
    design = structure.residue_type.copy()
    design[:16] = 20
    report = build_report([Evaluated(structure, designs=design[None])], seed=0)
    assert report.summary.undesigned == pytest.approx(16 / 64)
    assert report.summary.sampled_recovery.by_residue.value == pytest.approx(48 / 64)


def test_nothing_at_all_makes_a_report():
    report = build_report([], seed=0)
    assert report.summary.structures == 0 and report.summary.one_shot_perplexity is None


def test_plain_values_are_strict_json(report):
    document = json.loads(json.dumps(plain(report), allow_nan=False))
    assert document["summary"]["one_shot_recovery"]["median"]["value"] == report.summary.one_shot_recovery.median.value
    assert document["one_shot_calibration"]["confidence"][9] is None or isinstance(
        document["one_shot_calibration"]["confidence"][9], float
    )
    assert plain({"a": math.nan, "b": (1, np.array([math.inf, 2.0]))}) == {"a": None, "b": [1, [None, 2.0]]}
