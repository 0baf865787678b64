"""A cache at an address is the cache itself, bit by bit, whatever happens on the way; and it is fetched only once."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import protein_model.data.remote as remote
from protein_model.data.batching import BatchSettings, EpochPlan, MicroBatchSampler
from protein_model.data.cache import CacheError, CacheInterrupted, CacheOptions, StructureCache, build_cache, open_cache
from protein_model.data.collate import StructureDataset, collate
from protein_model.data.manifest import Manifest
from protein_model.data.splits import cluster_split, predefined_split
from tests.data.file_server import FileServer
from tests.data.structure_files import SMALL_EXAMPLES, random_pdb_text
from tests.training.hub_server import TOKEN, HubServer, failing

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> StructureCache:
    """Some examples and small chains, in four shards."""
    folder = tmp_path_factory.mktemp("structures")
    for path in SMALL_EXAMPLES:
        shutil.copy(path, folder)
    for number in range(20):
        (folder / f"f{number:02}.pdb").write_text(random_pdb_text(number, 20 + 3 * number))
    return build_cache(folder, tmp_path_factory.mktemp("cache"), num_workers=1, progress=False)


@pytest.fixture
def in_memory(cache) -> Iterator[str]:
    """The address of a copy of it in the memory file system."""
    system = fsspec.filesystem("memory")
    system.put(str(cache.folder), "/lab/cache", recursive=True)
    yield "memory://lab/cache"
    system.rm("/lab", recursive=True)


@pytest.fixture
def server(cache) -> Iterator[FileServer]:
    with FileServer(cache.folder) as started:
        yield started


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(remote, "FIRST_WAIT_SECONDS", 0.001)


def opened(address: str, cache_dir: Path, **options) -> StructureCache:
    return build_cache(address, cache_dir, progress=False, **options)


def shards_here(cache: StructureCache) -> set[str]:
    return {path.name for path in cache.folder.glob("shard-*.arrow")}


def assert_same(found: StructureCache, expected: StructureCache) -> None:
    assert (found.names, found.stems, found.sources, found.chain_ids) == (
        expected.names,
        expected.stems,
        expected.sources,
        expected.chain_ids,
    )
    assert (found.fingerprint, found.options, found.unusable) == (
        expected.fingerprint,
        expected.options,
        expected.unusable,
    )
    np.testing.assert_array_equal(found.lengths, expected.lengths)
    for first, second in zip(found, expected, strict=True):
        assert first.keys() == second.keys()
        assert all(np.array_equal(first[name], second[name]) for name in first)


def test_every_kind_of_address_gives_the_same_cache(cache, in_memory, server, tmp_path):
    for number, address in enumerate((in_memory, f"file://{cache.folder}", f"{server.url}/")):
        found = opened(address, tmp_path / str(number))
        assert not shards_here(found)  # names and lengths are in the index
        assert_same(found, cache)
        for name in shards_here(cache):
            assert (found.folder / name).read_bytes() == (cache.folder / name).read_bytes()
        assert list(found.dataset["name"]) == cache.names
        assert_same(open_cache(found.folder), cache)  # what was fetched whole is a finished cache
    assert set(server.sent.values()) == {1}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 99), shards=st.integers(1, 3), epoch=st.integers(0, 9), residues=st.integers(60, 300))
def test_batches_of_an_epoch_are_bitwise_those_of_the_local_cache(
    cache, in_memory, tmp_path_factory, seed, shards, epoch, residues
):
    def batches(source: StructureCache) -> list[dict[str, torch.Tensor]]:
        rows = np.arange(0, len(source), 2)
        sampler = MicroBatchSampler(EpochPlan(source.lengths[rows], BatchSettings(None, residues, shards, seed)))
        sampler.seek(epoch)
        dataset = StructureDataset(source, rows, residues, seed)
        return [collate(dataset.__getitems__(keys)) for keys in sampler]

    found = batches(opened(in_memory, tmp_path_factory.mktemp("here")))
    expected = batches(cache)
    assert len(found) == len(expected)
    for first, second in zip(found, expected, strict=True):
        assert all(torch.equal(first[name], second[name]) for name in second)


def test_only_the_shards_of_the_rows_that_are_used_come(cache, server, tmp_path):
    found = opened(server.url, tmp_path)
    rows = np.flatnonzero(found.stored_places < 3)
    found.fetch(rows)
    assert len(shards_here(found)) == 1
    asked = dict(server.sent)
    for row in rows.tolist():
        assert found.sequence(row) == cache.sequence(row)
    assert server.sent == asked
    found.fetch()
    assert shards_here(found) == shards_here(cache)


def test_what_is_here_is_not_fetched_again(cache, server, tmp_path):
    opened(server.url, tmp_path).fetch()
    before = Counter(server.sent)
    again = opened(server.url, tmp_path)
    again.fetch()
    assert_same(again, cache)
    assert server.sent - before == {"cache.json": 1}


def test_a_pickled_cache_is_its_folder_and_its_address(cache, in_memory, tmp_path):
    content = pickle.dumps(opened(in_memory, tmp_path))
    assert len(content) < 2000
    assert_same(pickle.loads(content), cache)


def test_the_copy_follows_a_cache_that_was_rebuilt(tmp_path):
    data, address = tmp_path / "data", f"file://{tmp_path / 'there'}"
    data.mkdir()

    def publish() -> StructureCache:
        built = build_cache(data, tmp_path / "built", num_workers=1, progress=False)
        shutil.copytree(built.folder, tmp_path / "there", dirs_exist_ok=True)
        return built

    for number in range(6):
        (data / f"f{number}.pdb").write_text(random_pdb_text(number))
    publish()
    old = opened(address, tmp_path / "here")
    old.fetch()
    before = shards_here(old)
    (data / "f3.pdb").write_text(random_pdb_text(33, 50))
    expected = publish()
    for path in (tmp_path / "there").glob("*.arrow"):
        if not (expected.folder / path.name).exists():
            path.unlink()
    new = opened(address, tmp_path / "here")
    assert len(shards_here(new)) == len(before) - 1  # the changed one is removed, and not fetched yet
    assert_same(new, expected)
    with pytest.raises(CacheError, match="was rebuilt from changed files while it was in use"):
        pickle.loads(pickle.dumps(old))


def test_splits_are_those_of_the_local_cache(cache, tmp_path):
    split = cluster_split(cache, 0)
    with FileServer(cache.folder) as server:
        found = opened(server.url, tmp_path / "with clusters")
        again = cluster_split(found, 0)
        assert not shards_here(found)  # its clusters lie beside it
        for path in cache.folder.glob("clusters-*"):
            path.unlink()
        anew = cluster_split(opened(server.url, tmp_path / "without clusters"), 0)
        names = {"train": cache.names[:9], "validation": cache.names[9:12]}
        (cache.folder / "chain_set_splits.json").write_text(json.dumps(names))
        predefined = predefined_split(found, server.url)
        (cache.folder / "chain_set_splits.json").unlink()
    assert predefined.validation.tolist() == [9, 10, 11]
    for other in (again, anew):
        assert other.train.tolist() == split.train.tolist()
        assert other.validation.tolist() == split.validation.tolist()


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1000))
def test_a_data_set_of_the_hub_gives_the_same_cache_through_failures(cache, tmp_path_factory, monkeypatch, seed):
    """By the real client, while a fifth of all requests fail."""
    files = {path.name: path.read_bytes() for path in cache.folder.iterdir() if path.suffix in (".arrow", ".json")}
    with HubServer() as hub:
        hub.add(f"lab/structures{seed}", **files)
        monkeypatch.setitem(fsspec.config.conf, "hf", {"endpoint": hub.url, "token": TOKEN})
        hub.rule = failing(0.2, seed)
        found = opened(f"hf://datasets/lab/structures{seed}", tmp_path_factory.mktemp("here"))
        found.fetch(np.arange(5))
        assert 0 < len(shards_here(found)) <= len(shards_here(cache))
        assert_same(found, cache)
        hub.rule = lambda method, path: None
        with pytest.raises(CacheError, match="there is no finished cache"):
            opened("hf://datasets/lab/nothing", tmp_path_factory.mktemp("nothing"))


# What goes wrong on the way


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(failures=st.lists(st.sampled_from(["cut", "500", "503", "429"]), min_size=1, max_size=6))
def test_what_passes_by_itself_is_waited_for(cache, server, tmp_path_factory, failures):
    left = {name: list(failures) for name in (*shards_here(cache), "cache.json")}
    server.rule = lambda name: left[name].pop() if left.get(name) else None
    assert_same(opened(server.url, tmp_path_factory.mktemp("here")), cache)
    assert not any(left.values())


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("503", r"shard-.*\.arrow cannot be had \(7 attempts\): .*503"),
        ("cut", r"shard-.*\.arrow cannot be had \(7 attempts\): "),
        ("403", r"shard-.*\.arrow cannot be had: .*403"),
        ("404", r"shard-.*\.arrow is missing, although the cache there lists it"),
    ],
)
def test_what_does_not_pass_is_named(server, tmp_path, rule, message):
    server.rule = lambda name: rule if name.startswith("shard") else None
    found = opened(server.url, tmp_path)
    with pytest.raises(CacheError, match=message):
        found.fetch()
    assert not shards_here(found)
    assert not list(found.folder.glob(".*.fetched"))
    server.rule = lambda name: None
    found.fetch()


def test_damage_at_the_address_is_noticed(cache, in_memory, tmp_path):
    system = fsspec.filesystem("memory")
    [first, second, third, *_] = sorted(shards_here(cache))
    content = system.cat(f"/lab/cache/{first}")
    system.pipe(f"/lab/cache/{first}", content[:-8])
    damaged = bytearray(system.cat(f"/lab/cache/{second}"))
    damaged[len(damaged) // 2] ^= 1
    system.pipe(f"/lab/cache/{second}", bytes(damaged))
    # A wrong file with the right checksum, as a stranger could make it.
    manifest = json.loads(system.cat("/lab/cache/cache.json"))
    record = next(shard for shard in manifest["shards"] if shard["file"] == third)
    record |= {"size": 5, "sha256": hashlib.sha256(b"wrong").hexdigest()}
    system.pipe(f"/lab/cache/{third}", b"wrong")
    system.pipe("/lab/cache/cache.json", json.dumps(manifest).encode())
    found = opened(in_memory, tmp_path)
    places = {shard["file"]: number for number, shard in enumerate(found._shards)}
    for name, message in (
        (first, f"{first} cannot be had .*: it has {len(content) - 8:,} bytes instead of the {len(content):,}"),
        (second, f"{second} cannot be had .*: its content does not match the checksum"),
        (third, f"{third} cannot be had .*: it is no Arrow file of a cache"),
    ):
        number = places[name]
        rows = (found.stored_places >= found._starts[number]) & (found.stored_places < found._starts[number + 1])
        with pytest.raises(CacheError, match=message):
            found.fetch(np.flatnonzero(rows))
    assert not shards_here(found)


@pytest.mark.parametrize("name", ["../evil.arrow", "/evil.arrow", ".hidden", "a\n"])
def test_a_list_of_contents_cannot_write_elsewhere(in_memory, tmp_path, name):
    system = fsspec.filesystem("memory")
    manifest = json.loads(system.cat("/lab/cache/cache.json"))
    manifest["shards"][0]["file"] = name
    system.pipe("/lab/cache/cache.json", json.dumps(manifest).encode())
    with pytest.raises(CacheError, match=r"names a file .* which is no plain name"):
        opened(in_memory, tmp_path / "here").fetch()
    assert not list(tmp_path.rglob("evil*"))


def test_a_cache_of_an_older_release_gets_its_checksums(tmp_path):
    for number in range(6):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / f"f{number}.pdb").write_text(random_pdb_text(number))
    built = build_cache(tmp_path / "data", tmp_path, num_workers=1, progress=False)
    path = built.folder / "cache.json"
    new = Manifest.read(built.folder)
    manifest = json.loads(path.read_text())
    del manifest["index"]
    for shard in manifest["shards"]:
        del shard["sha256"]
    path.write_text(json.dumps(manifest))
    next(built.folder.glob("index-*")).unlink()
    assert_same(open_cache(built.folder), built)
    with pytest.raises(CacheError, match="built by an older release, without index and checksums; where its str"):
        opened(f"file://{built.folder}", tmp_path / "here")
    again = build_cache(tmp_path / "data", tmp_path, num_workers=1, progress=False)
    assert again.statistics.read == 0
    completed = Manifest.read(built.folder)
    assert completed.index == new.index
    assert [shard["sha256"] for shard in completed.shards] == [shard["sha256"] for shard in new.shards]
    assert_same(opened(f"file://{built.folder}", tmp_path / "here"), built)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("memory://nothing/here", r"memory://nothing/here: there is no finished cache \(it has no cache\.json\)"),
        ("nonsense://x", "nonsense://x: is no address that fsspec understands"),
        ("dropbox://x", "dropbox://x: .*install"),
        ("ftp://me:secret@host/cache", r"^(?!.*secret).*has a password in it"),
    ],
)
def test_addresses_that_cannot_work(tmp_path, address, message):
    with pytest.raises(CacheError, match=message):
        opened(address, tmp_path)


def test_other_options_are_refused(in_memory, tmp_path):
    with pytest.raises(CacheError, match=r"is a finished cache with .*chain.*but .*complex.* is asked for"):
        opened(in_memory, tmp_path, options=CacheOptions(unit="complex"))


def test_a_stop_is_not_kept_waiting(server, tmp_path, monkeypatch):
    found = opened(server.url, tmp_path)
    server.rule = lambda name: "503"
    monkeypatch.setattr(remote, "FIRST_WAIT_SECONDS", 30.0)
    asked = threading.Event()
    threading.Timer(0.5, asked.set).start()
    started = time.monotonic()
    with pytest.raises(CacheInterrupted):
        found.fetch(should_stop=asked.is_set)
    assert time.monotonic() - started < 10


FETCH = """
import sys
from protein_model.data.cache import build_cache
cache = build_cache(sys.argv[1], sys.argv[2], progress=False)
cache.fetch()
print(sum(len(cache.sequence(row)) for row in range(len(cache))))
"""


def test_two_processes_fetch_each_shard_once(cache, server, tmp_path):
    server.rule = lambda name: time.sleep(0.2)
    command = [sys.executable, "-c", FETCH, server.url, str(tmp_path)]
    running = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = {process.communicate(timeout=60)[0].strip() for process in running}
    assert outputs == {str(int(cache.lengths.sum()))}
    assert {server.sent[name] for name in shards_here(cache)} == {1}


def test_without_an_address_fsspec_is_not_even_loaded(cache):
    code = (
        "import sys\nfrom protein_model.data.cache import build_cache\n"
        f"print(len(build_cache({str(cache.folder)!r}, 'unused', progress=False)), 'fsspec' in sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert output.split() == [str(len(cache)), "False"]
