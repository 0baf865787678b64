"""Making shards in several processes. A crash of the reader costs the file that it was reading, and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from .errors import CacheError, CacheInterrupted
from .shards import make_shard
from .subprocesses import begin_to_serve, how_it_ended, start_worker

POLL_SECONDS = 0.1
# Signals by which a process dies of its own fault. Any other one was sent by someone and says nothing about the file.
CRASH_SIGNALS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)

Task = Mapping[str, Any]
Result = dict[str, Any]


def make_shards(
    tasks: Sequence[Task],
    num_workers: int,
    on_item: Callable[[], None],
    should_stop: Callable[[], bool],
) -> Generator[tuple[Task, Result], None, None]:
    """Run `make_shard` on tasks, in this process or in several, and yield each with its result as it is done.

    Parameters
    ----------
    num_workers : 1 for this process alone
    on_item : called once for each source item that is read
    should_stop : polled all the time

    Raises
    ------
    CacheInterrupted : `should_stop` returned True
    CacheError : a worker was killed or cannot run
    """
    if num_workers == 1:
        yield from _make_here(tasks, on_item, should_stop)
    else:
        yield from _make_in_workers(tasks, num_workers, on_item, should_stop)


def _make_here(
    tasks: Sequence[Task], on_item: Callable[[], None], should_stop: Callable[[], bool]
) -> Generator[tuple[Task, Result], None, None]:
    def begin_item(number: int) -> None:
        if should_stop():
            raise CacheInterrupted("building the cache was stopped; the next build goes on from its finished shards")
        on_item()

    for task in tasks:
        yield task, make_shard(task, begin_item)


def _make_in_workers(
    tasks: Sequence[Task], num_workers: int, on_item: Callable[[], None], should_stop: Callable[[], bool]
) -> Generator[tuple[Task, Result], None, None]:
    waiting: queue.SimpleQueue[Task] = queue.SimpleQueue()
    for task in tasks:
        waiting.put(task)
    events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    workers = [_Worker(waiting, events) for _ in range(min(num_workers, len(tasks)))]
    try:
        for worker in workers:
            worker.start()
        unfinished = len(tasks)
        while unfinished:
            if should_stop():
                raise CacheInterrupted(
                    "building the cache was stopped; the next build goes on from its finished shards"
                )
            try:
                kind, value = events.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            if kind == "item":
                on_item()
            elif kind == "error":
                # A signal to all processes of a job ends workers too, a moment before it is noticed here.
                if should_stop():
                    continue
                raise value
            else:
                unfinished -= 1
                yield value
    finally:
        for worker in workers:
            worker.stop()
        for worker in workers:
            if worker.is_alive():  # not so if an interruption came before it was started
                worker.join()


class _Worker(threading.Thread):
    """Looks after one subprocess: hands it tasks, starts another if it crashes."""

    def __init__(self, waiting: queue.SimpleQueue[Task], events: queue.SimpleQueue[tuple[str, Any]]):
        super().__init__(daemon=True)
        self._waiting = waiting
        self._events = events
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False
        self._lock = threading.Lock()

    def run(self) -> None:
        try:
            while not self._stopped:
                try:
                    task = self._waiting.get_nowait()
                except queue.Empty:
                    break
                self._events.put(("done", (task, self._make(task))))
        except (CacheError, OSError) as error:
            if not self._stopped:
                known = isinstance(error, CacheError)
                self._events.put(("error", error if known else CacheError(f"a worker process cannot run: {error}")))
        finally:
            self._close_process()

    def stop(self) -> None:
        """End the subprocess at once. What it was writing has a temporary name."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()

    def _close_process(self) -> int:
        """Exit status, after the subprocess has ended or has been told to by closing its input."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return 0
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # what was not sent to a dead process
            process.stdin.close()
        status = process.wait()
        process.stdout.close()
        return status

    def _start_process(self) -> subprocess.Popen[str]:
        with self._lock:
            if self._stopped:
                raise CacheError("stopped")
            if self._process is None:
                self._process = start_worker(__name__)
            return self._process

    def _make(self, task: Task) -> Result:
        crashes: dict[str, str] = {}
        while True:
            process = self._start_process()
            assert process.stdin is not None and process.stdout is not None
            reading: int | None = None
            try:
                process.stdin.write(json.dumps({**task, "crashes": crashes}) + "\n")
                process.stdin.flush()
                for line in process.stdout:
                    message = json.loads(line)
                    if "item" in message:
                        reading = message["item"]
                        self._events.put(("item", reading))
                    elif "error" in message:
                        raise CacheError(message["error"])
                    else:
                        return message["result"]
            except BrokenPipeError:
                pass  # it died before it took the task, which its exit status tells more about
            status = self._close_process()
            if -status not in CRASH_SIGNALS or reading is None:
                raise CacheError(_death(status, task, reading))
            crashes[str(reading)] = f"the reader crashed on it ({signal.Signals(-status).name})"


def _death(status: int, task: Task, reading: int | None) -> str:
    paths = [item["path"] for item in task["items"]]
    where = f"while reading {paths[reading]}" if reading is not None else "before it read a file"
    hint = "; if memory ran out, use fewer workers" if -status == signal.SIGKILL else ""
    return (
        f"a worker process {how_it_ended(status)} {where} (shard {task['index']} of {len(paths)} files, from "
        f"{paths[0]} to {paths[-1]}){hint}. Run again: finished shards are kept"
    )


def serve() -> None:
    """Main loop of a worker: a task per line on standard input, progress and results as lines on standard output."""
    send = begin_to_serve()

    def begin_item(number: int) -> None:
        send(item=number)

    for line in sys.stdin:
        try:
            try:
                send(result=make_shard(json.loads(line), begin_item))
            except BrokenPipeError:
                raise
            except (CacheError, OSError, MemoryError) as error:
                send(error=f"{type(error).__name__}: {error}" if not isinstance(error, CacheError) else str(error))
        except BrokenPipeError:
            # The builder was killed. Nobody waits for what is left, and closing the pipe once more would complain.
            os._exit(1)
