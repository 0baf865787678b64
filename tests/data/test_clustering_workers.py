"""Sequences compared in several processes: the same clusters, and nothing stays behind however they end."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from protein_model.data.clustering import cluster_sequences
from protein_model.data.clustering_workers import links_by_workers
from protein_model.data.errors import SplitError
from protein_model.data.word_index import WordIndex
from tests.data.sequences import family, random_sequence

ROOT = Path(__file__).resolve().parents[2]


def children() -> set[int]:
    """Subprocesses of this process that have not ended."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that has ended meanwhile
            found |= {int(child) for child in (task / "children").read_text().split()}
    return found


@pytest.fixture(autouse=True)
def no_process_stays_behind():
    before = children()
    yield
    assert children() <= before


@pytest.fixture(scope="module")
def sequences() -> list[str]:
    generator = np.random.default_rng(3)
    parents = [random_sequence(generator, int(length)) for length in generator.integers(20, 150, 25)]
    return [member for parent in parents for member in [parent, *family(generator, parent, 5)]]


@pytest.mark.parametrize("num_workers", [2, 5])
def test_clusters_do_not_depend_on_the_number_of_processes(sequences, num_workers):
    seen = []
    alone = cluster_sequences(sequences, num_workers=1)
    together = cluster_sequences(sequences, lambda: seen.append(1), num_workers)
    assert len(set(alone.tolist())) < len(sequences) / 3
    assert len(set(zip(alone.tolist(), together.tolist(), strict=True))) == len(set(alone.tolist()))
    assert len(set(together.tolist())) == len(set(alone.tolist()))
    assert len(seen) == len(set(sequences))


def test_links_are_only_those_that_make_clusters(sequences):
    """What one process links, the others are told; so a family costs few more links than it has members."""
    unique = sorted(set(sequences), key=lambda sequence: (len(sequence), sequence))
    links = [link for found in links_by_workers(WordIndex.of(unique), 3) for link in found]
    assert len(unique) - len(set(cluster_sequences(unique).tolist())) <= len(links) < 3 * len(unique)


def test_few_sequences_need_no_other_process(sequences, monkeypatch):
    monkeypatch.setattr(sys, "executable", "nothing")
    assert len(cluster_sequences(sequences)) == len(sequences)


def test_stopping_ends_the_processes(sequences):
    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        cluster_sequences(sequences, stop, num_workers=3)


def test_a_process_that_dies_ends_the_work_and_says_how(sequences, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("import os; os._exit(7)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(SplitError, match=r"similarity ended with exit status 7; .*taskset, or --cluster_file"):
        cluster_sequences(sequences, num_workers=2)
    (tmp_path / "sitecustomize.py").write_text("import os; os.kill(os.getpid(), 9)")
    with pytest.raises(SplitError, match=r"similarity was killed by SIGKILL"):
        cluster_sequences(sequences, num_workers=2)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    with pytest.raises(SplitError, match=r"similarity cannot run \(.*No such file"):
        cluster_sequences(sequences, num_workers=2)


def test_no_room_is_said_with_the_folder_and_the_size(sequences):
    program = (
        "import resource, signal; from protein_model.data.clustering import cluster_sequences\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "cluster_sequences(['A' * 50, 'C' * 60], num_workers=2)"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert re.search(r"SplitError: no room for 0 MB of temporary files, .*TMPDIR.*\s\Z", ended.stderr)


def test_no_temporary_folder_is_said_as_such(sequences, monkeypatch):
    def none(**options):
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "TemporaryFile", none)
    with pytest.raises(SplitError, match=r"no room for .* \(No usable temporary directory found\); name a folder in"):
        cluster_sequences(sequences, num_workers=2)


@pytest.mark.parametrize("half", ['{"links": [[0', "no JSON\\n"])
def test_a_reply_that_makes_no_sense_is_not_waited_for(sequences, tmp_path, monkeypatch, half):
    """Such as the half of a line, from a process that is killed while it writes."""
    (tmp_path / "sitecustomize.py").write_text(
        f"import os, sys\nif '-c' in sys.orig_argv: os.write(1, b'{half}'); os._exit(7)"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises((SplitError, ValueError)):
        cluster_sequences(sequences, num_workers=2)


def test_processes_end_with_the_one_that_was_killed(tmp_path):
    program = (
        "import random; from protein_model.data.clustering import cluster_sequences\n"
        "texts = [''.join(random.choices('ACDEFGHIKLMNPQRSTVWY', k=400)) for _ in range(5000)]\n"
        "cluster_sequences(texts, lambda: print('.', flush=True), num_workers=2)"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(50):
            process.stdout.readline()
        tasks = Path(f"/proc/{process.pid}/task").iterdir()
        workers = [int(child) for task in tasks for child in (task / "children").read_text().split()]
        process.send_signal(signal.SIGKILL)
    assert len(workers) == 2
    for _ in range(200):
        if not any(_alive(worker) for worker in workers):
            break
        time.sleep(0.1)
    assert not any(_alive(worker) for worker in workers)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z" and os.path.exists(f"/proc/{pid}")
