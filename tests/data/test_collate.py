"""Rows -> flat tensors; windows of long structures depend on the seed, the epoch and the row alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from protein_model.data.batching import SampleKey
from protein_model.data.cache import CacheOptions, StructureCache, build_cache
from protein_model.data.collate import StructureDataset, collate, model_inputs
from protein_model.structures import write_structure
from tests.data.structure_files import complex_of

FIELDS = ("backbone", "residue_type", "chain_index", "position")


@pytest.fixture(scope="module")
def cache(tmp_path_factory, example_structures) -> StructureCache:
    """Complexes of one, two and three chains, some residues without a complete backbone."""
    folder = tmp_path_factory.mktemp("structures")
    for number in range(6):
        parts = example_structures[number : number + 1 + number % 3]
        structure = complex_of(f"c{number}", dict(zip("ABC", parts, strict=False)))
        structure.atom_mask[number :: 9 + number, number % 4] = False
        write_structure(structure, folder / f"c{number}.pdb")
    options = CacheOptions(unit="complex")
    return build_cache(folder, tmp_path_factory.mktemp("cache"), options, num_workers=1, progress=False)


def everything(cache: StructureCache, max_residues: int | None = None, seed: int = 0) -> StructureDataset:
    return StructureDataset(cache, np.arange(len(cache)), max_residues, seed)


def test_flat_batch_is_the_structures_end_to_end(cache):
    dataset = everything(cache)
    keys = [SampleKey(row, 0) for row in (3, 0, 5, 0)]
    batch = collate(dataset.__getitems__(keys))
    lengths = [int(cache.lengths[key.row]) for key in keys]
    assert batch["backbone"].shape == (sum(lengths), 4, 3)
    assert batch["row"].tolist() == [3, 0, 5, 0]
    ends = np.cumsum(lengths)
    for number, key in enumerate(keys):
        rows = slice(ends[number] - lengths[number], ends[number])
        assert (batch["structure_index"][rows] == number).all()
        for name in FIELDS:
            np.testing.assert_array_equal(batch[name][rows].numpy(), cache[key.row][name])
        complete = cache.structure(key.row).backbone_complete
        assert 0 < complete.sum() < len(complete)
        np.testing.assert_array_equal(batch["backbone_mask"][rows].numpy(), complete)
    assert {name: tensor.dtype for name, tensor in batch.items()} == {
        "backbone": torch.float32,
        "backbone_mask": torch.bool,
        **dict.fromkeys(("residue_type", "structure_index", "chain_index", "position", "row"), torch.int64),
    }


def test_what_the_encoder_reads_has_no_residue_types(cache):
    batch = collate([everything(cache)[SampleKey(1, 0)]])
    inputs = model_inputs(batch)
    assert set(inputs) == {"backbone", "backbone_mask", "structure_index", "chain_index", "position"}
    assert all(inputs[name] is batch[name] for name in inputs)


def test_tensors_may_be_written_and_the_cache_stays_as_it_is(cache):
    before = cache[2]["backbone"].copy()
    batch = collate([everything(cache)[SampleKey(2, 0)]])
    batch["backbone"] += 1
    batch["residue_type"][:] = 20
    np.testing.assert_array_equal(cache[2]["backbone"], before)


def test_a_batch_without_structures_has_one_residue_that_counts_for_nothing():
    batch = collate([])
    assert batch["backbone"].shape == (1, 4, 3)
    assert not batch["backbone_mask"].any()
    assert batch["residue_type"].tolist() == [20]
    assert batch["row"].tolist() == [-1]
    assert {len(tensor) for tensor in batch.values()} == {1}


def window_start(cache: StructureCache, row: int, sample: dict) -> int:
    """Where a window begins, by content, not by position in the chain."""
    whole, window = cache[row]["backbone"], sample["backbone"]
    starts = [i for i in range(len(whole) - len(window) + 1) if np.array_equal(whole[i : i + len(window)], window)]
    assert len(starts) == 1
    return starts[0]


@settings(max_examples=40, deadline=None)
@given(row=st.integers(0, 5), epoch=st.integers(0, 1000), seed=st.integers(0, 5), max_residues=st.integers(20, 500))
def test_long_structures_are_cropped_to_a_contiguous_window(cache, row, epoch, seed, max_residues):
    sample = everything(cache, max_residues, seed)[SampleKey(row, epoch)]
    whole = cache[row]
    length = len(whole["residue_type"])
    start = window_start(cache, row, sample)
    window = slice(start, start + min(length, max_residues))
    for name in (*FIELDS, "atom_mask"):
        np.testing.assert_array_equal(sample[name], whole[name][window])


def test_windows_depend_on_seed_epoch_and_row_alone(cache):
    keys = [SampleKey(row, epoch) for row in range(6) for epoch in range(5)]

    def starts(dataset: StructureDataset, keys: list[SampleKey]) -> dict[SampleKey, int]:
        return {key: window_start(cache, int(dataset.rows[key.row]), dataset[key]) for key in keys}

    first = starts(everything(cache, 30), keys)
    assert starts(everything(cache, 30), keys[::-1]) == first
    assert starts(everything(cache, 30), keys[7:9]) == {key: first[key] for key in keys[7:9]}
    # A split counts rows differently; the window is that of the row of the cache all the same.
    part = StructureDataset(cache, np.array([1, 4]), 30, 0)
    assert starts(part, [SampleKey(1, 3)])[SampleKey(1, 3)] == first[SampleKey(4, 3)]

    others = starts(everything(cache, 30, seed=1), keys)
    assert sum(others[key] != first[key] for key in keys) > len(keys) / 2
    for row in range(6):
        assert len({first[SampleKey(row, epoch)] for epoch in range(5)}) > 1


def test_every_window_comes_in_its_turn(cache):
    """No residue is out of reach: the first and the last window are drawn, and all are about equally frequent."""
    row = int(np.argmin(cache.lengths))
    length = int(cache.lengths[row])
    dataset = everything(cache, length - 3)
    drawn = [window_start(cache, row, dataset[SampleKey(row, epoch)]) for epoch in range(400)]
    counts = np.bincount(drawn, minlength=4)
    assert len(counts) == 4
    assert counts.min() > 60


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_loader_workers_see_the_same_batches(cache, method):
    batches = [[SampleKey(row, 2) for row in rows] for rows in ((0, 3), (5,), (), (1, 2, 4))]
    dataset = everything(cache, 50)
    loader = DataLoader(
        dataset, batch_sampler=batches, collate_fn=collate, num_workers=1, multiprocessing_context=method
    )
    for batch, keys in zip(loader, batches, strict=True):
        expected = collate(dataset.__getitems__(keys))
        assert all(torch.equal(batch[name], expected[name]) for name in expected)
