"""Worker processes: a crash of the reader costs the file that it crashed on, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from protein_model.data.cache import CacheError, CacheInterrupted, CacheOptions, build_cache
from tests.data.structure_files import pdb_text

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = CacheOptions(min_length=3)

# Python runs a module of this name when it starts. The worker opens a file twice: to hash it, then to read it; at the
# second time it dies by the signal that the file's name has.
FAULTY_READER = """
import os, signal, sys

opened = set()


def die(event, arguments):
    if event == "open" and isinstance(arguments[0], str) and "DIE_" in arguments[0] and "shard" not in arguments[0]:
        name = os.path.basename(arguments[0])
        if name in opened:
            os.kill(os.getpid(), getattr(signal, name.split(".")[0].split("DIE_")[1]))
        opened.add(name)


sys.addaudithook(die)
"""


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """A folder of 40 files, for workers that die of some of them."""
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(FAULTY_READER)
    monkeypatch.setenv("PYTHONPATH", str(hook))
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(40):
        (folder / f"f{number:02}.pdb").write_text(pdb_text(3 + number % 5))
    return folder


def test_a_crash_costs_the_file_that_it_happened_on(data, tmp_path):
    for crash in ("SIGSEGV", "SIGABRT"):
        (data / f"DIE_{crash}.pdb").write_text(pdb_text(4))
    cache = build_cache(data, tmp_path, OPTIONS, num_workers=2, progress=False)
    assert cache.names == [f"f{number:02}.A" for number in range(40)]
    assert [(line.file, line.reason) for line in cache.unusable] == [
        (f"DIE_{crash}.pdb", f"file cannot be read: the reader crashed on it ({crash})")
        for crash in ("SIGABRT", "SIGSEGV")
    ]
    again = build_cache(data, tmp_path, OPTIONS, num_workers=2, progress=False)
    assert (again.statistics.read, again.unusable) == (0, cache.unusable)


def test_a_worker_that_is_killed_ends_the_build_and_its_finished_shards_are_kept(data, tmp_path):
    (data / "DIE_SIGKILL.pdb").write_text(pdb_text(4))
    with pytest.raises(CacheError, match=r"killed by SIGKILL while reading DIE_SIGKILL\.pdb .*use fewer workers"):
        build_cache(data, tmp_path, OPTIONS, num_workers=2, progress=False)
    (data / "DIE_SIGKILL.pdb").unlink()
    assert len(build_cache(data, tmp_path, OPTIONS, num_workers=2, progress=False)) == 40


def test_a_worker_that_cannot_start_says_how_it_ended(data, tmp_path):
    (tmp_path / "hook" / "sitecustomize.py").write_text("import os; os._exit(7)")
    with pytest.raises(CacheError, match="a worker process ended with exit status 7 before it read a file"):
        build_cache(data, tmp_path, OPTIONS, num_workers=2, progress=False)


def test_stopping_ends_the_workers(data, tmp_path):
    polled = 0

    def should_stop() -> bool:
        nonlocal polled
        polled += 1
        return polled > 3

    with pytest.raises(CacheInterrupted, match="goes on from its finished shards"):
        build_cache(data, tmp_path, OPTIONS, num_workers=2, progress=False, should_stop=should_stop)
    assert len(build_cache(data, tmp_path, OPTIONS, num_workers=2, progress=False)) == 40


def test_workers_find_the_package_where_the_session_found_it(tmp_path):
    """An interactive session in the folder of the package finds it by an empty entry of `sys.path`."""
    for number in range(8):
        (tmp_path / f"f{number}.pdb").write_text(pdb_text(4))
    session = f"""
        from protein_model.data.cache import CacheOptions, build_cache
        cache = build_cache({str(tmp_path)!r}, {str(tmp_path)!r}, CacheOptions(min_length=3), 2, progress=False)
        print(len(cache))
    """
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    command = [sys.executable, "-c", textwrap.dedent(session)]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert result.stdout == "8\n", result.stderr
