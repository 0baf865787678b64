"""Every figure against a slow, literal computation of its definition."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protein_model.inference.metrics import (
    Bootstrap,
    calibration,
    confusion_matrix,
    perplexity,
    recovery,
    scored_residues,
)
from tests.inference.evaluation_cases import example

seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, samples=st.integers(1, 4))
def test_recovery_counts_residues_of_known_type_with_a_whole_backbone(seed, samples):
    generator = np.random.default_rng(seed)
    structure = example("1orc.pdb.gz")
    types = structure.residue_type.copy()
    types[generator.random(len(types)) < 0.1] = 20
    mask = structure.atom_mask.copy()
    mask[generator.random(len(types)) < 0.1, generator.integers(4)] = False
    structure = replace(structure, residue_type=types, atom_mask=mask)
    designed = np.where(generator.random((samples, len(types))) < 0.5, types, 3)
    for sample, found in zip(designed, recovery(designed, structure), strict=True):
        right = counted = 0
        for row in range(len(types)):
            if types[row] != 20 and mask[row, 0] and mask[row, 1] and mask[row, 2] and mask[row, 3]:
                counted += 1
                right += int(sample[row] == types[row])
        assert found == pytest.approx(right / counted)
        assert scored_residues(structure).sum() == counted


def test_recovery_of_nothing_is_no_number():
    structure = example("1orc.pdb.gz")
    unknown = replace(structure, residue_type=np.full(len(structure), 20, np.int8))
    assert np.isnan(recovery(np.zeros((2, len(structure)), int), unknown)).all()


def test_perplexity_is_over_all_residues_together():
    assert perplexity([math.log(20) * 10, math.log(5) * 30], [10, 30]) == pytest.approx(20**0.25 * 5**0.75)
    assert math.isnan(perplexity([], []))


@settings(max_examples=40, deadline=None)
@given(seed=seeds, count=st.integers(1, 40))
def test_bootstrap_is_what_resampling_one_by_one_gives(seed, count):
    generator = np.random.default_rng(seed)
    values, weights = generator.random(count), generator.integers(1, 50, count).astype(float)
    bootstrap = Bootstrap(count, seed, resamples=50)
    means, medians, ratios = [], [], []
    for drawn in bootstrap._drawn:
        means.append(sum(values[i] for i in drawn) / count)
        medians.append(sorted(values[i] for i in drawn)[count // 2] if count % 2 else np.median(values[drawn]))
        ratios.append(sum(values[i] * weights[i] for i in drawn) / sum(weights[i] for i in drawn))
    for found, resampled, value in (
        (bootstrap.mean(values), means, values.mean()),
        (bootstrap.median(values), medians, np.median(values)),
        (bootstrap.ratio(values * weights, weights), ratios, (values * weights).sum() / weights.sum()),
    ):
        assert found == pytest.approx((value, np.quantile(resampled, 0.025), np.quantile(resampled, 0.975)))
    found = bootstrap.perplexity(values * weights, weights)
    assert found == pytest.approx(np.exp(bootstrap.ratio(values * weights, weights)))


def test_bootstrap_intervals_cover_the_truth_about_as_often_as_they_say():
    generator = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        found = Bootstrap(60, trial, resamples=400).mean(generator.normal(loc=0.4, scale=0.1, size=60))
        hits += found.low <= 0.4 <= found.high
    assert 180 <= hits <= 199


def test_the_bootstrap_depends_on_its_seed_alone():
    values = np.random.default_rng(3).random(25)
    assert Bootstrap(25, 1).median(values) == Bootstrap(25, 1).median(values)
    assert Bootstrap(25, 1).mean(values) != Bootstrap(25, 2).mean(values)
    assert all(math.isnan(part) for part in Bootstrap(0, 1).median(np.array([])))
    assert all(math.isnan(part) for part in Bootstrap(2, 1).ratio(np.zeros(2), np.zeros(2)))


@settings(max_examples=40, deadline=None)
@given(seed=seeds, residues=st.integers(0, 60), samples=st.integers(1, 4))
def test_confusion_counts_pairs(seed, residues, samples):
    generator = np.random.default_rng(seed)
    native = generator.integers(20, size=residues).astype(np.int8)
    predicted = generator.integers(21, size=(samples, residues)).astype(np.int8)
    counts = confusion_matrix(native, predicted)
    slow = np.zeros((20, 21), int)
    for sample in predicted:
        for own, other in zip(native, sample, strict=True):
            slow[own, other] += 1
    assert np.array_equal(counts, slow)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, count=st.integers(1, 300))
def test_calibration_bins(seed, count):
    generator = np.random.default_rng(seed)
    confidence = np.concatenate([generator.random(count), [0.0, 1.0, 0.5]])
    right = generator.random(count + 3) < 0.4
    found = calibration(confidence, right)
    error = 0.0
    for index in range(10):
        low, high = index / 10, (index + 1) / 10
        inside = [i for i, one in enumerate(confidence) if low <= one < high or (one == 1.0 and index == 9)]
        assert found.count[index] == len(inside)
        if inside:
            mean, accuracy = np.mean(confidence[inside]), np.mean(right[inside])
            assert (found.confidence[index], found.accuracy[index]) == pytest.approx((mean, accuracy))
            error += len(inside) / len(confidence) * abs(mean - accuracy)
        else:
            assert np.isnan(found.confidence[index])
    assert found.error == pytest.approx(error)


def test_calibrated_predictions_have_no_calibration_error():
    generator = np.random.default_rng(0)
    confidence = generator.random(200_000)
    right = generator.random(200_000) < confidence
    assert calibration(confidence, right).error < 0.005
    assert calibration(confidence, np.zeros(200_000, bool)).error == pytest.approx(0.5, abs=0.005)
    assert math.isnan(calibration(np.array([]), np.array([], bool)).error)
