"""Training on a cache at an address: the run is that of the local cache, and a process fetches its part only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import protein_model.data.building as building
from protein_model.data.cache import StructureCache, build_cache
from protein_model.training.arguments import GivenOptions, Settings, SettingsError
from protein_model.training.launching import LaunchError, refuse_different_data
from protein_model.training.preparation import TrainingData, prepare_data
from protein_model.training.trainer import Trainer
from tests.data.file_server import FileServer
from tests.data.structure_files import random_pdb_text

from .comparison import assert_same, state_of

SHARDS = 4  # of a global batch


@pytest.fixture
def server(structures, cache_dir) -> Iterator[FileServer]:
    """Has the cache that all runs share."""
    with FileServer(build_cache(structures, cache_dir, num_workers=1, progress=False).folder) as started:
        yield started


@pytest.mark.parametrize("parts", [False, True])
def test_a_run_on_an_address_is_that_on_the_local_cache(start, server, tmp_path, parts):
    options = {"shuffle_within_parts": parts, "gradient_accumulation_steps": 2, "epochs": 2}
    expected = start(save_dir="local", **options)
    expected.fit()
    found = start(save_dir="remote", pdb_path=server.url, cache_dir=str(tmp_path / "here"), **options)
    found.fit()
    assert_same(state_of(found), state_of(expected))
    saved = json.loads((found.save_dir / "settings.json").read_text())["settings"]
    assert (saved["pdb_path"], saved["shuffle_within_parts"]) == (server.url, parts)


def test_two_processes_on_parts_are_one_bit_for_bit(start, launch, server, tmp_path):
    one = start(save_dir="one", shuffle_within_parts=True, gradient_accumulation_steps=2, epochs=2, deterministic=True)
    one.fit()
    options = ("--pdb_path", server.url, "--shuffle_within_parts", "--deterministic", "--epochs", "2")
    places = ("--cache_dir", str(tmp_path / "here"), "--save_dir", str(tmp_path / "two"))
    launch(*options, *places, processes=2)
    found, expected = (
        torch.load(folder / "checkpoint_epoch_2/state/optimizer.bin", weights_only=True)["state"]
        for folder in (tmp_path / "two", one.save_dir)
    )
    for index, entry in expected.items():
        assert all(torch.equal(value, found[index][name]) for name, value in entry.items())
    losses = [
        [
            (epoch["train_loss"], epoch["validation_loss"])
            for epoch in json.loads((folder / "history.json").read_text())["epochs"]
        ]
        for folder in (tmp_path / "two", one.save_dir)
    ]
    assert losses[0] == losses[1]


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> StructureCache:
    """A cache of 32 shards."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(128):
        (folder / f"f{number:03}.pdb").write_text(random_pdb_text(number, 20 + number % 30))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "FILES_PER_SHARD", 4)
        return build_cache(folder, tmp_path_factory.mktemp("cache"), num_workers=1, progress=False)


def prepared(address: str, cache_dir: Path, process: int, processes: int, parts: bool) -> TrainingData:
    settings = Settings(
        pdb_path=address, cache_dir=str(cache_dir), batch_residues=150, shuffle_within_parts=parts, hidden_dim=8
    )
    return prepare_data(settings, SHARDS, process, processes, None, lambda: False)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_a_process_reads_its_part_only(many, tmp_path, processes):
    """Also with other numbers of processes than the global batch has shards; and then nothing more comes."""
    everything: list[int] = []
    with FileServer(many.folder) as server:
        local = prepared(str(many.folder), tmp_path, 0, 1, parts=True)
        for process in range(processes):
            data = prepared(server.url, tmp_path / str(process), process, processes, parts=True)
            here = len(list(data.cache.folder.glob("shard-*.arrow")))
            assert here <= len(data.cache._shards) / processes + 2 * SHARDS / processes
            sent = server.sent.total()
            for epoch in range(2):
                local.sampler.seek(epoch)
                data.sampler.seek(epoch)
                batches = list(data.sampler)
                assert batches == list(local.sampler)
                for keys in batches[process::processes]:
                    for sample, key in zip(data.train_loader.dataset.__getitems__(keys), keys, strict=True):
                        expected = local.train_loader.dataset[key]
                        assert sample["row"] == expected["row"]
                        np.testing.assert_array_equal(sample["backbone"], expected["backbone"])
                    everything += [key.row for key in keys if epoch == 0]
            validation = list(data.validation_loader.batch_sampler)
            assert validation == list(local.validation_loader.batch_sampler)
            for keys in validation[process::processes]:
                data.validation_loader.dataset.__getitems__(keys)
            assert server.sent.total() == sent
    assert sorted(everything) == list(range(len(local.split.train)))


def test_without_parts_everything_is_fetched_before_training(many, tmp_path):
    with FileServer(many.folder) as server:
        data = prepared(server.url, tmp_path, 1, 2, parts=False)
        assert len(list(data.cache.folder.glob("shard-*.arrow"))) == len(list(many.folder.glob("shard-*.arrow")))


def test_a_dry_run_fetches_no_shard(start, server, tmp_path):
    trainer = start(pdb_path=server.url, cache_dir=str(tmp_path / "here"), dry_run=True)
    assert not list(trainer.data.cache.folder.glob("shard-*.arrow"))


@pytest.mark.parametrize(
    ("option", "advice"),
    [
        ("save_dir", "a checkpoint is committed by renaming"),
        ("cache_dir", "it is memory-mapped"),
        ("split_file", "copy the file"),
    ],
)
def test_addresses_where_only_paths_will_do(tmp_path, monkeypatch, option, advice):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=f"--{option} s3://bucket/run: must be a path, not an address: {advice}"):
        Trainer(GivenOptions({option: "s3://bucket/run"}))
    assert not list(tmp_path.iterdir())


def test_processes_that_found_different_data_are_refused():
    refuse_different_data(["a", "a"], "data")
    with pytest.raises(LaunchError, match="--pdb_path data: process 2 found other data than process 0"):
        refuse_different_data(["a", "a", "b"], "data")
