"""Subprocesses that talk over pipes: started when needed, stopped at once, and what their exit status says."""

from __future__ import annotations

import json
import os
import signal

import pytest

from protein_model.data.subprocesses import Worker, WorkerStopped, available_processors, how_it_ended


@pytest.fixture
def worker():
    worker = Worker("tests.data.echoing", ("one", "two"))
    yield worker
    worker.stop()
    worker.close()


def ask(worker: Worker, text: str) -> dict:
    requests, replies = worker.pipes()
    requests.write(text + "\n")
    requests.flush()
    line = replies.readline()
    return json.loads(line) if line else {}


def test_it_answers_and_what_libraries_print_is_no_answer(worker):
    assert ask(worker, "a") == {"echo": "a", "arguments": ["one", "two"]}
    assert ask(worker, "b")["echo"] == "b"
    assert worker.close() == 0


def test_it_is_started_again_after_it_has_ended(worker):
    assert ask(worker, "exit 3") == {}
    status = worker.close()
    assert how_it_ended(status) == "ended with exit status 3"
    assert ask(worker, "a")["echo"] == "a"


def test_after_a_stop_it_does_not_run(worker):
    ask(worker, "a")
    worker.stop()
    assert how_it_ended(worker.close()) == "was killed by SIGKILL"
    assert worker.stopped
    with pytest.raises(WorkerStopped):
        worker.pipes()
    assert worker.close() == 0


def test_signals_to_all_processes_of_a_job_do_not_end_it(worker):
    ask(worker, "a")
    assert worker._process is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        os.kill(worker._process.pid, number)
    assert ask(worker, "b")["echo"] == "b"


def test_there_is_a_processor():
    assert 1 <= available_processors() <= (os.cpu_count() or 1)
