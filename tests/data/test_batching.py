"""The order of an epoch: every structure once, limits kept, the same however many processes share it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protein_model.data.batching import (
    BatchingError,
    BatchSettings,
    EpochPlan,
    MicroBatchSampler,
    sequential_by_part,
    sequential_micro_batches,
    shards_per_process,
)
from protein_model.data.parts import equal_parts, parts_of_neighbours, rows_of_parts

lengths_strategy = st.lists(st.integers(1, 700), min_size=1, max_size=150).map(np.array)


@settings(max_examples=80, deadline=None)
@given(
    lengths=lengths_strategy,
    batch_size=st.none() | st.integers(1, 9),
    batch_residues=st.none() | st.integers(20, 900),
    shards=st.integers(1, 8),
    seed=st.integers(0, 5),
)
def test_every_epoch_has_each_structure_once_within_the_limits(lengths, batch_size, batch_residues, shards, seed):
    if batch_size is None and batch_residues is None:
        batch_size = 4
    plan = EpochPlan(lengths, BatchSettings(batch_size, batch_residues, shards, seed))
    for epoch in range(3):
        batches = plan.epoch(epoch)
        assert len(batches) == plan.steps_per_epoch * shards
        assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
        for rows in batches:
            if batch_size is not None:
                assert len(rows) <= batch_size
            if batch_residues is not None:
                assert np.minimum(lengths[rows], batch_residues).sum() <= batch_residues


def test_order_is_a_function_of_seed_and_epoch():
    lengths = np.random.default_rng(0).integers(40, 500, 300)

    def order(seed, epoch):
        plan = EpochPlan(lengths, BatchSettings(None, 3000, 4, seed))
        return [rows.tolist() for rows in plan.epoch(epoch)]

    assert order(1, 7) == order(1, 7)
    assert order(1, 7) != order(1, 8)
    assert order(1, 7) != order(2, 7)


def test_batches_are_nearly_full_and_equally_long():
    lengths = np.random.default_rng(1).integers(40, 500, 5000)
    plan = EpochPlan(lengths, BatchSettings(None, 6000, 8, 0))
    filled = np.array([lengths[rows].sum() for rows in plan.epoch(3)])
    assert lengths.sum() / (len(filled) * 6000) > 0.93
    assert filled.min() > 0.9 * filled.max()


def test_any_two_structures_may_meet():
    lengths = np.random.default_rng(2).integers(40, 500, 60)
    plan = EpochPlan(lengths, BatchSettings(None, 2500, 1, 0))
    met = set()
    for epoch in range(300):
        for rows in plan.epoch(epoch):
            met |= {(a, b) for a in rows.tolist() for b in rows.tolist() if a < b}
    assert len(met) == 60 * 59 // 2


@pytest.mark.parametrize("processes", [1, 2, 3, 6])
def test_processes_share_each_step(processes):
    shards = 6
    lengths = np.random.default_rng(3).integers(40, 300, 200)
    sampler = MicroBatchSampler(EpochPlan(lengths, BatchSettings(4, None, shards, 0)))
    sampler.seek(epoch=2)
    micro_batches = [[key.row for key in keys] for keys in sampler]
    taken = shards_per_process(shards, processes)
    for step in range(len(micro_batches) // shards):
        whole = micro_batches[step * shards : (step + 1) * shards]
        dealt = [[whole[process + turn * processes] for turn in range(taken)] for process in range(processes)]
        assert sorted(rows for part in dealt for rows in part) == sorted(whole)


def test_seek_continues_in_the_middle_of_an_epoch():
    lengths = np.random.default_rng(4).integers(40, 300, 100)
    sampler = MicroBatchSampler(EpochPlan(lengths, BatchSettings(5, None, 2, 0)))
    sampler.seek(epoch=3)
    whole = list(sampler)
    sampler.seek(epoch=3, first_step=4)
    assert list(sampler) == whole[4 * 2 :]
    assert len(sampler) == len(whole) - 4 * 2


def test_a_number_of_processes_that_does_not_divide_is_refused_with_those_that_do():
    with pytest.raises(BatchingError, match=r"8 shards, which 3 processes .* 1, 2, 4 or 8 processes"):
        shards_per_process(8, 3)


@settings(max_examples=50, deadline=None)
@given(lengths=lengths_strategy, batch_size=st.none() | st.integers(1, 9), multiple_of=st.integers(1, 8))
def test_evaluation_batches_have_each_structure_once(lengths, batch_size, multiple_of):
    batches = sequential_micro_batches(lengths, batch_size, 800, multiple_of)
    assert len(batches) % multiple_of == 0
    assert sorted(key.row for keys in batches for key in keys) == list(range(len(lengths)))
    for keys in batches:
        assert len(keys) <= (batch_size or len(lengths))
        assert len(keys) == 1 or sum(int(lengths[key.row]) for key in keys) <= 800


@pytest.mark.parametrize(
    ("batch_size", "batch_residues", "message"),
    [(None, None, "give --batch_size"), (0, None, "--batch_size must be"), (None, -3, "--batch_residues must be")],
)
def test_unusable_limits_are_refused(batch_size, batch_residues, message):
    with pytest.raises(BatchingError, match=message):
        BatchSettings(batch_size, batch_residues, 1, 0)


# Parts


def plan_of_parts(lengths, batch_size, batch_residues, shards, seed, places=None):
    places = np.arange(len(lengths)) if places is None else places
    parts = equal_parts(places, lengths, shards)
    return EpochPlan(lengths, BatchSettings(batch_size, batch_residues, shards, seed), parts), parts


@settings(max_examples=80, deadline=None)
@given(
    lengths=lengths_strategy,
    batch_size=st.none() | st.integers(1, 9),
    batch_residues=st.integers(20, 900),
    shards=st.integers(1, 8),
    seed=st.integers(0, 5),
)
def test_micro_batches_of_parts_have_each_structure_once_within_the_limits(
    lengths, batch_size, batch_residues, shards, seed
):
    plan, parts = plan_of_parts(lengths, batch_size, batch_residues, shards, seed)
    for epoch in range(3):
        batches = plan.epoch(epoch)
        assert len(batches) == plan.steps_per_epoch * shards
        assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
        for number, rows in enumerate(batches):
            assert (parts[rows] == number % shards).all()
            assert len(rows) <= (batch_size or len(lengths))
            assert np.minimum(lengths[rows], batch_residues).sum() <= batch_residues


@given(lengths=lengths_strategy, count=st.integers(1, 12), seed=st.integers(0, 9))
def test_parts_are_neighbours_and_equally_large(lengths, count, seed):
    places = np.random.default_rng(seed).permutation(len(lengths))
    parts = equal_parts(places, lengths, count)
    assert (np.diff(parts[np.argsort(places)]) >= 0).all()
    sizes = np.bincount(parts, weights=lengths, minlength=count)
    assert len(sizes) == count
    assert np.abs(sizes - lengths.sum() / count).max() <= lengths.max()
    for part, rows in enumerate(rows_of_parts(parts, count)):
        assert rows.tolist() == np.flatnonzero(parts == part).tolist()


def test_parts_of_neighbours_are_those_of_the_structures_beside_them():
    places, parts = np.array([40, 10, 30, 20]), np.array([2, 0, 1, 0])
    assert parts_of_neighbours(np.array([5, 11, 29, 31, 99]), places, parts).tolist() == [0, 0, 0, 1, 2]


def test_parts_cost_few_steps_and_keep_the_order_random():
    lengths = np.random.default_rng(6).integers(40, 500, 6000)
    plan, _ = plan_of_parts(lengths, None, 6000, 8, 0)
    assert plan.steps_per_epoch <= EpochPlan(lengths, BatchSettings(None, 6000, 8, 0)).steps_per_epoch + 1
    first, second = plan.epoch(0), plan.epoch(1)
    assert [rows.tolist() for rows in first] == [rows.tolist() for rows in plan.epoch(0)]
    assert [rows.tolist() for rows in first] != [rows.tolist() for rows in second]
    filled = np.array([lengths[rows].sum() for rows in first])
    assert filled.min() > 0.9 * filled.max()


def test_any_two_structures_meet_as_often_with_parts_in_a_step():
    """Of the same part or of different ones: once in as many epochs as an epoch has steps."""
    lengths = np.full(48, 100)
    plan, parts = plan_of_parts(lengths, None, 400, 4, 0)
    epochs, step_of = 600, np.empty(48, int)
    met = np.zeros((48, 48))
    for epoch in range(epochs):
        for number, rows in enumerate(plan.epoch(epoch)):
            step_of[rows] = number // 4
        met += step_of[:, None] == step_of
    same = parts[:, None] == parts
    np.fill_diagonal(met, np.nan)
    expected = epochs / plan.steps_per_epoch
    assert plan.steps_per_epoch == 3
    assert np.nanmean(met[~same]) == pytest.approx(expected, rel=0.02)
    # One of 12 places of a part is taken by the structure itself: 3 others of 11 are in its step.
    assert np.nanmean(met[same]) == pytest.approx(epochs * 3 / 11, rel=0.02)
    assert np.nanmin(met) > 0.6 * epochs * 3 / 11


@settings(max_examples=50, deadline=None)
@given(
    lengths=lengths_strategy, batch_size=st.none() | st.integers(1, 9), count=st.integers(1, 6), seed=st.integers(0, 9)
)
def test_evaluation_batches_of_parts_have_each_structure_once(lengths, batch_size, count, seed):
    parts = np.random.default_rng(seed).integers(0, count, len(lengths))
    batches = sequential_by_part(lengths, batch_size, 800, parts, count)
    assert len(batches) % count == 0
    assert sorted(key.row for keys in batches for key in keys) == list(range(len(lengths)))
    for number, keys in enumerate(batches):
        assert all(parts[key.row] == number % count for key in keys)
        assert len(keys) <= (batch_size or len(lengths))
        assert len(keys) <= 1 or sum(int(lengths[key.row]) for key in keys) <= 800
