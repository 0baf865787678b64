"""Building reads what is new or changed and nothing else, survives interruptions, and reports what it cannot use."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

import protein_model.data.locking as locking
from protein_model.data.building import DEAL_ANEW_FACTOR, FILES_PER_SHARD, MAX_SHARDS, MIN_SHARDS
from protein_model.data.cache import CacheError, CacheInterrupted, CacheOptions, StructureCache, build_cache, open_cache
from protein_model.data.inventory import SourceItem
from protein_model.data.manifest import JOURNAL_FILE, Journal, Manifest
from protein_model.data.shards import FORMAT_VERSION, shard_of
from protein_model.structures import read_structure
from tests.data.structure_files import EXAMPLES, assert_same_structure, copy_examples, pdb_text
from tests.structures.pdb_text import chain, residue

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = CacheOptions(min_length=3)


def build(pdb_path: Path, cache_dir: Path, num_workers: int | None = 1, **options) -> StructureCache:
    return build_cache(pdb_path, cache_dir, OPTIONS, num_workers, progress=False, **options)


def write_files(folder: Path, count: int, length: int = 3) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"f{number:03}.pdb").write_text(pdb_text(length))


def content(cache: StructureCache) -> list[tuple[str, str, list[str], bytes]]:
    return [
        (cache.names[row], cache.sequence(row), cache.chain_ids[row], cache[row]["backbone"].tobytes())
        for row in range(len(cache))
    ]


def members_of_shard(cache: StructureCache, path: str) -> int:
    """Number of files that share the shard of one of them."""
    [shard] = [s for s in Manifest.read(cache.folder).shards if any(item["path"] == path for item in s["items"])]
    return len(shard["items"])


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


# What is read again


class Folder:
    """A folder of small files, what was in it at the last build, and the operations on it."""

    def __init__(self, root: Path):
        self.root = root
        root.mkdir()
        self.built: dict[str, str] = {}
        self.write("always", 5)

    def path(self, name: str) -> Path:
        return self.root / f"{name}.pdb"

    def write(self, name: str, length: int) -> None:
        self.path(name).write_text(pdb_text(length, "GLY" if length % 2 else "SER"))

    def remove(self, name: str, length: int) -> None:
        self.path(name).unlink(missing_ok=True)

    def touch(self, name: str, length: int) -> None:
        if self.path(name).exists():
            os.utime(self.path(name), (length, length))

    def damage(self, name: str, length: int) -> None:
        self.path(name).write_text(f"nothing of use, {length}\n")

    def rename(self, name: str, length: int) -> None:
        if self.path(name).exists():
            self.path(name).rename(self.path(f"other{length}"))

    def contents(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.root.iterdir()}

    def expected_to_be_read(self) -> int:
        """Files in those shards whose files are not what they were at the last build."""

        def by_shard(contents: dict[str, str]) -> dict[int, dict[str, str]]:
            shards: dict[int, dict[str, str]] = defaultdict(dict)
            for name, text in contents.items():
                shards[shard_of(SourceItem(name, ""), MIN_SHARDS)][name] = text
            return shards

        before, now = by_shard(self.built), by_shard(self.contents())
        return sum(len(files) for shard, files in now.items() if before.get(shard) != files)


operations = st.tuples(
    st.sampled_from(["write", "remove", "touch", "damage", "rename"]),
    st.sampled_from([f"file{number}" for number in range(9)]),
    st.integers(3, 8),
)


@settings(max_examples=15, deadline=None)
@given(rounds=st.lists(st.lists(operations, max_size=6), min_size=2, max_size=4))
def test_after_any_changes_the_cache_is_what_is_in_the_folder_and_only_changed_shards_were_read(
    rounds, tmp_path_factory
):
    place = tmp_path_factory.mktemp("place")
    folder = Folder(place / "data")
    for operations_of_round in rounds:
        for operation, name, length in operations_of_round:
            getattr(folder, operation)(name, length)
        cache = build(folder.root, place)
        contents = folder.contents()
        assert cache.statistics.read == folder.expected_to_be_read()
        assert cache.statistics.read + cache.statistics.kept == len(contents)
        good = sorted(name for name, text in contents.items() if "ATOM" in text)
        assert cache.sources == good
        assert sorted(line.file for line in cache.unusable) == sorted(set(contents) - set(good))
        for row, name in enumerate(good):
            assert_same_structure(cache.structure(row), read_structure(folder.root / name))
        folder.built = contents
    anew = build(folder.root, place / "anew")
    assert (content(anew), anew.fingerprint) == (content(cache), cache.fingerprint)
    shutil.rmtree(place)


@pytest.fixture
def folder_of_many(tmp_path) -> Path:
    write_files(tmp_path / "data", 5 * FILES_PER_SHARD)
    return tmp_path / "data"


def test_one_changed_added_or_removed_file_costs_its_shard(folder_of_many, tmp_path):
    first = build(folder_of_many, tmp_path)
    total = 5 * FILES_PER_SHARD
    assert (first.statistics.read, first.statistics.kept) == (total, 0)
    shards = sorted(first.folder.glob("shard-*.arrow"))
    assert len(shards) == 5

    changed = folder_of_many / "f007.pdb"
    changed.write_text(pdb_text(4))
    second = build(folder_of_many, tmp_path)
    assert second.statistics.read == members_of_shard(second, "f007.pdb") < total / 2
    assert second.statistics.read + second.statistics.kept == total
    assert second.lengths[second.names.index("f007.A")] == 4
    assert second.fingerprint != first.fingerprint
    assert len(set(second.folder.glob("shard-*.arrow")) & set(shards)) == 4

    (folder_of_many / "new.pdb").write_text(pdb_text(5))
    third = build(folder_of_many, tmp_path)
    assert third.statistics.read == members_of_shard(third, "new.pdb") < total / 2
    assert len(third) == total + 1

    (folder_of_many / "new.pdb").unlink()
    changed.write_text(pdb_text(3))
    fourth = build(folder_of_many, tmp_path)
    assert fourth.fingerprint == first.fingerprint
    assert content(fourth) == content(first)


def test_other_times_and_an_unchanged_folder_cost_nothing(folder_of_many, tmp_path):
    first = build(folder_of_many, tmp_path)
    written = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    assert build(folder_of_many, tmp_path).statistics.read == 0
    for number, path in enumerate(folder_of_many.iterdir()):
        os.utime(path, (number, number))
    again = build(folder_of_many, tmp_path)
    assert (again.statistics.read, again.fingerprint) == (0, first.fingerprint)
    assert all(path.stat().st_mtime_ns == time for path, time in written.items() if path.suffix == ".arrow")


def test_a_change_that_keeps_size_and_times_is_seen_when_it_follows_at_once(tmp_path):
    """The racy case: the file is changed within the resolution of the file system's times."""
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "a.pdb"
    for kind in ("ALA", "GLY", "SER", "VAL"):
        path.write_text(pdb_text(3, kind))
        os.utime(path, (1_000_000_000, 1_000_000_000))
        cache = build(tmp_path / "data", tmp_path)
        assert cache.sequence(0) == {"ALA": "AAA", "GLY": "GGG", "SER": "SSS", "VAL": "VVV"}[kind]


def test_fingerprint_is_of_contents_paths_and_options(tmp_path):
    write_files(tmp_path / "one", 6)
    write_files(tmp_path / "two", 6)
    one, two = build(tmp_path / "one", tmp_path), build(tmp_path / "two", tmp_path)
    assert one.fingerprint == two.fingerprint
    assert one.folder != two.folder
    for options in (CacheOptions(unit="complex", min_length=3), CacheOptions(min_length=2)):
        other = build_cache(tmp_path / "one", tmp_path, options, num_workers=1, progress=False)
        assert other.fingerprint != one.fingerprint
        assert other.folder != one.folder
    (tmp_path / "two" / "f000.pdb").rename(tmp_path / "two" / "g.pdb")
    assert build(tmp_path / "two", tmp_path).fingerprint != one.fingerprint


def test_shards_are_dealt_anew_when_the_data_have_outgrown_them(tmp_path):
    data = tmp_path / "data"
    write_files(data, 8)
    assert Manifest.read(build(data, tmp_path).folder).shard_count == MIN_SHARDS
    enough = MIN_SHARDS * DEAL_ANEW_FACTOR * FILES_PER_SHARD
    write_files(data, enough)
    grown = build(data, tmp_path)
    assert Manifest.read(grown.folder).shard_count == MIN_SHARDS  # four times as many are still put up with
    assert grown.statistics.read == enough
    (data / "one_more.pdb").write_text(pdb_text(3))
    anew = build(data, tmp_path)
    assert MIN_SHARDS * DEAL_ANEW_FACTOR < Manifest.read(anew.folder).shard_count <= MAX_SHARDS
    assert anew.statistics.read == enough + 1
    assert build(data, tmp_path).statistics.read == 0


# Interruptions


def noted(journal: Path) -> dict[str, int]:
    """Files in each finished shard that a journal knows of."""
    return {record["file"]: len(record["items"]) for record in Journal(journal.parent).read()[1]}


@settings(max_examples=6, deadline=None)
@given(stops=st.lists(st.integers(0, 60), min_size=1, max_size=3))
def test_a_stopped_build_goes_on_from_its_finished_shards(stops, tmp_path_factory):
    place = tmp_path_factory.mktemp("place")
    write_files(place / "data", 40)
    finished: dict[str, int] = {}
    for stop in stops:
        polled = 0

        def should_stop(stop=stop) -> bool:
            nonlocal polled
            polled += 1
            return polled > stop

        try:
            cache = build(place / "data", place, should_stop=should_stop)
        except CacheInterrupted:
            [journal] = place.glob(f"*/{JOURNAL_FILE}")
            assert not list(place.glob("*/cache.json"))
            assert finished.items() <= noted(journal).items()
            finished = noted(journal)
        else:
            assert cache.statistics.kept == sum(finished.values())
            finished = {shard["file"]: len(shard["items"]) for shard in Manifest.read(cache.folder).shards}
    cache = build(place / "data", place)
    assert cache.statistics.kept == sum(finished.values())
    assert cache.statistics.read + cache.statistics.kept == 40
    uninterrupted = build(place / "data", place / "other")
    assert (content(cache), cache.fingerprint) == (content(uninterrupted), uninterrupted.fingerprint)
    assert not list(place.glob(f"*/{JOURNAL_FILE}"))
    shutil.rmtree(place)


def command(pdb_path: Path, cache_dir: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "protein_model", "cache"),
            *("--pdb_path", str(pdb_path), "--cache_dir", str(cache_dir), "--min_length", "3", *options),
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Where the tests run in the background of a shell, Ctrl-C is ignored, and would be here as well.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def state_and_parent(pid: int) -> tuple[str, int]:
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return "gone", 0
    return state, int(parent)


def children(pid: int) -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if state_and_parent(int(path.name))[1] == pid]


def is_running(pid: int) -> bool:
    return state_and_parent(pid)[0] not in ("gone", "Z")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for worker processes in /proc")
def test_a_build_that_is_killed_goes_on_from_its_finished_shards(tmp_path):
    data = tmp_path / "data"
    total = len(copy_examples(data, 30))

    def finished() -> dict[str, int]:
        return {shard: files for path in tmp_path.glob(f"*/{JOURNAL_FILE}") for shard, files in noted(path).items()}

    before: dict[str, int] = {}
    for _ in range(2):
        builder = command(data, tmp_path, "--num_workers", "2")
        wait_until(lambda: len(finished()) > len(before) or builder.poll() is not None)  # noqa: B023
        workers = children(builder.pid)
        os.kill(builder.pid, signal.SIGKILL)
        _, errors = builder.communicate(timeout=60)
        assert builder.returncode == -signal.SIGKILL, errors
        assert len(workers) == 2
        wait_until(lambda: not any(map(is_running, workers)))  # noqa: B023
        assert "Traceback" not in errors
        assert before.items() <= finished().items()
        before = finished()
    [folder] = [path.parent for path in tmp_path.glob(f"*/{JOURNAL_FILE}")]
    with pytest.raises(CacheError, match="not a finished cache"):
        open_cache(folder)

    kept = sum(before.values())
    assert 0 < kept <= total  # all of them, where the kill came just before the end
    cache = build(data, tmp_path, num_workers=2)
    assert (cache.statistics.kept, cache.statistics.read) == (kept, total - kept)
    assert not list(folder.glob("*.tmp"))
    uninterrupted = build(data, tmp_path / "other")
    assert (content(cache), cache.fingerprint) == (content(uninterrupted), uninterrupted.fingerprint)


def test_ctrl_c_ends_the_command_with_one_line(tmp_path):
    copy_examples(tmp_path / "data", 300)
    builder = command(tmp_path / "data", tmp_path, "--num_workers", "2")
    wait_until(lambda: bool(list(tmp_path.glob(f"*/{JOURNAL_FILE}"))))
    os.killpg(builder.pid, signal.SIGINT)
    output, errors = builder.communicate(timeout=60)
    assert (builder.returncode, output) == (130, "")
    assert errors == "stopped; the same command goes on from the finished shards\n"


# Several processes


def test_of_two_processes_one_builds_and_the_other_waits(tmp_path):
    total = len(copy_examples(tmp_path / "data", 12))
    processes = [command(tmp_path / "data", tmp_path, "--num_workers", "1") for _ in range(2)]
    results = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    folders = {output.strip() for output, _ in results}
    assert len(folders) == 1
    read = sorted(int(re.search(r"([\d,]+) files read", errors)[1]) for _, errors in results)
    assert read == [0, total]
    assert len(open_cache(folders.pop())) == total


@pytest.fixture
def held_lock(tmp_path) -> FileLock:
    """The lock of the cache of `tmp_path / "data"`, as another process that builds it holds it."""
    write_files(tmp_path / "data", 4)
    folder = build(tmp_path / "data", tmp_path).folder
    shutil.rmtree(folder)
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    lock.acquire()
    return lock


def test_who_waits_says_so_and_goes_on_when_the_other_is_done(held_lock, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(locking, "SECONDS_BEFORE_WAITING_IS_TOLD", 0.1)
    built: list[StructureCache] = []

    def wait_and_build() -> None:
        built.append(build_cache(tmp_path / "data", tmp_path, OPTIONS, num_workers=1))

    waiting = threading.Thread(target=wait_and_build)
    waiting.start()
    waiting.join(timeout=1.5)
    assert waiting.is_alive()
    assert not list(tmp_path.glob("*/*.arrow"))
    held_lock.release()
    waiting.join(timeout=30)
    assert len(built[0]) == 4
    assert "waiting for another process that works on this cache" in capsys.readouterr().err


def test_waiting_can_be_stopped(held_lock, tmp_path):
    with pytest.raises(CacheInterrupted, match="waiting for another process"):
        build(tmp_path / "data", tmp_path, should_stop=lambda: True)
    held_lock.release()


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    write_files(tmp_path / "data", 2)

    def refuse(self, *arguments, **options):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with pytest.raises(CacheError, match="does not lock files"):
        build(tmp_path / "data", tmp_path)


# What cannot be used


@pytest.fixture
def folder_with_faults(tmp_path) -> Path:
    data = tmp_path / "data"
    write_files(data, 5)
    (data / "empty.pdb").touch()
    (data / "text.pdb").write_text("Dear diary,\n")
    (data / "cut.pdb.gz").write_bytes(gzip.compress(pdb_text(9).encode())[:-20])
    (data / "short.pdb").write_text(pdb_text(2))
    (data / "trace.pdb").write_text("".join(residue("ALA", i, i, ["CA"]) for i in range(1, 9)))
    (data / "dangling.cif").symlink_to("nowhere.cif")
    (data / "half.pdb").write_text(chain(["ALA"] * 9, chain="A") + chain(["GLY"] * 2, chain="B"))
    lines = pdb_text(6).splitlines(keepends=True)
    (data / "stars.pdb").write_text("".join([*lines[:3], lines[3][:30] + "*" * 8 + lines[3][38:], *lines[4:]]))
    (data / "stars2.pdb").write_text("".join([*lines[:7], lines[7][:30] + " " * 8 + lines[7][38:], *lines[8:]]))
    return data


def test_what_cannot_be_used_is_in_the_report_and_counted_on_screen(folder_with_faults, tmp_path, capsys):
    cache = build_cache(folder_with_faults, tmp_path, OPTIONS, num_workers=1)
    assert len(cache) == 6
    with open(cache.folder / "report.tsv", newline="", encoding="utf-8") as handle:
        report = list(csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE))
    expected = {
        "cut.pdb.gz": ("", "gzip data are cut off"),
        "dangling.cif": ("", "file cannot be read: No such file"),
        "empty.pdb": ("", "file is empty"),
        "half.pdb": ("B", "fewer than 3 residues with a complete backbone: 2"),
        "short.pdb": ("A", "fewer than 3 residues with a complete backbone: 2"),
        "stars.pdb": ("", "line 4: x coordinate '********' is no number"),
        "stars2.pdb": ("", "line 8: x coordinate '' is no number"),
        "text.pdb": ("", "no atoms: "),
        "trace.pdb": ("", "CA-only trace: "),
    }
    assert [line["file"] for line in report] == sorted(expected)
    for line in report:
        unit, reason = expected[line["file"]]
        assert line["unit"] == unit
        assert line["reason"].startswith(reason)
    assert [tuple(line.values()) for line in report] == [tuple(line) for line in cache.unusable]

    screen = capsys.readouterr().err
    assert "7 whole files and 2 parts of files" in screen
    assert str(cache.folder / "report.tsv") in screen
    for counted in (
        "2 x fewer than 3 residues with a complete backbone",
        "2 x x coordinate is no number",
        "1 x file is empty",
    ):
        assert re.search(rf"^ +{counted}$", screen, re.MULTILINE), screen
    assert build(folder_with_faults, tmp_path).unusable == cache.unusable
    assert open_cache(cache.folder).unusable == cache.unusable


def test_the_report_follows_the_files(folder_with_faults, tmp_path):
    before = build(folder_with_faults, tmp_path)
    (folder_with_faults / "empty.pdb").write_text(pdb_text(4))
    after = build(folder_with_faults, tmp_path)
    assert {line.file for line in before.unusable} - {line.file for line in after.unusable} == {"empty.pdb"}
    assert "empty.pdb" not in (after.folder / "report.tsv").read_text()
    assert "empty.A" in after.names


def test_nothing_usable_is_an_error_with_the_reasons(tmp_path):
    (tmp_path / "data").mkdir()
    for number in range(3):
        (tmp_path / "data" / f"f{number}.pdb").touch()
    with pytest.raises(CacheError, match=r"no structure in it can be used \(chain as unit, at least 3") as caught:
        build(tmp_path / "data", tmp_path)
    assert "3 x file is empty" in str(caught.value)
    [report] = tmp_path.glob("*/report.tsv")
    assert str(report) in str(caught.value)
    assert len(report.read_text().splitlines()) == 4


def test_a_file_that_changes_all_the_time_is_named(tmp_path):
    write_files(tmp_path / "data", 5)
    growing = tmp_path / "data" / "f002.pdb"

    def append() -> bool:
        with growing.open("a") as handle:
            handle.write("REMARK\n")
        return False

    with pytest.raises(CacheError, match=r"f002\.pdb changes while it is being read; wait"):
        build(tmp_path / "data", tmp_path, should_stop=append)
    assert len(build(tmp_path / "data", tmp_path)) == 5


def test_damaged_and_missing_shards_are_made_again(tmp_path, capsys):
    write_files(tmp_path / "data", 40)
    good = build(tmp_path / "data", tmp_path)
    expected = content(good)
    shards = sorted(good.folder.glob("shard-*.arrow"))
    assert len(shards) == MIN_SHARDS
    shards[0].unlink()
    shards[1].write_bytes(shards[1].read_bytes()[:-100])
    shards[2].write_bytes(b"\0" * shards[2].stat().st_size)
    for shard in shards[:3]:
        with pytest.raises(CacheError, match=r"shard-.* cannot be used.*; rebuild it with: python -m"):
            open_cache(good.folder)
        assert shard.name
    again = build_cache(tmp_path / "data", tmp_path, OPTIONS, num_workers=1)
    assert content(again) == expected
    assert 0 < again.statistics.read < 40
    errors = capsys.readouterr().err
    assert f"{shards[0]} cannot be used: it is missing" in errors
    assert "instead of" in errors
    assert "it is damaged" in errors


@pytest.mark.parametrize("damage", ["cut", "other version", "not JSON", "lacks a key", "lacks rows", "no number"])
def test_a_table_of_contents_that_cannot_be_used_is_made_again(tmp_path, damage):
    write_files(tmp_path / "data", 8)
    cache = build(tmp_path / "data", tmp_path)
    expected, contents = content(cache), cache.folder / "cache.json"
    text = contents.read_text()
    values = json.loads(text)
    del values["shards"]
    contents.write_text(
        {
            "cut": text[: len(text) // 2],
            "other version": text.replace('"version": ', '"version": 9'),
            "not JSON": text[:-5] + "?",
            "lacks a key": json.dumps(values),
            "lacks rows": text.replace('"rows"', '"rowz"'),
            "no number": text.replace('"shard_count": ', '"shard_count": "4", "x": '),
        }[damage]
    )
    with pytest.raises(CacheError, match=r"build the cache again|rebuild it with"):
        open_cache(cache.folder)
    assert content(build(tmp_path / "data", tmp_path)) == expected
    assert content(open_cache(cache.folder)) == expected


def test_a_journal_that_was_cut_off_is_used_as_far_as_it_goes(tmp_path):
    write_files(tmp_path / "data", 40)
    whole = build(tmp_path / "data", tmp_path)
    records = list(Manifest.read(whole.folder).shards)
    (whole.folder / "cache.json").unlink()
    journal = Journal(whole.folder)
    journal.begin(MIN_SHARDS, records[:1])
    journal.add(records[1])
    with open(whole.folder / JOURNAL_FILE, "a") as handle:
        handle.write(json.dumps(records[2])[:-30])
    again = build(tmp_path / "data", tmp_path)
    assert again.statistics.kept == sum(len(record["items"]) for record in records[:2])
    assert (content(again), again.fingerprint) == (content(whole), whole.fingerprint)


@pytest.mark.parametrize(
    "lines",
    [
        "[1]",
        "3",
        json.dumps({"version": FORMAT_VERSION}),
        json.dumps({"version": FORMAT_VERSION, "shard_count": "x"}),
        None,
    ],
)
def test_a_journal_of_something_else_is_not_used(tmp_path, lines):
    write_files(tmp_path / "data", 8)
    expected = content(build(tmp_path / "data", tmp_path))
    [folder] = [path.parent for path in tmp_path.glob("*/cache.json")]
    good = json.dumps({"version": FORMAT_VERSION, "shard_count": MIN_SHARDS})
    (folder / JOURNAL_FILE).write_text(f"{lines or good}\n" + '{"x": 1}\n')
    assert content(build(tmp_path / "data", tmp_path)) == expected


def test_a_damaged_index_is_made_again(tmp_path):
    write_files(tmp_path / "data", 8)
    folder = build(tmp_path / "data", tmp_path).folder
    [index] = folder.glob("index-*.arrow")
    good = index.read_bytes()
    index.write_bytes(good[:100] + bytes(byte ^ 255 for byte in good[100:]))
    build(tmp_path / "data", tmp_path)
    assert index.read_bytes() == good


def test_several_workers_give_the_same_cache_as_one(tmp_path):
    total = len(copy_examples(tmp_path / "data", 3, EXAMPLES[:12]))
    one = build_cache(tmp_path / "data", tmp_path / "one", num_workers=1, progress=False)
    three = build_cache(tmp_path / "data", tmp_path / "three", num_workers=3, progress=False)
    assert three.statistics.read == total
    assert (one.names, one.fingerprint) == (three.names, three.fingerprint)
    assert content(one) == content(three)
    for first, second in zip(one, three, strict=True):
        assert all(np.array_equal(first[name], second[name]) for name in first)
