"""Making shards in several processes. A crash of the reader costs the file that it was reading, and nothing else."""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from ..wording import counted
from .errors import CacheError, CacheInterrupted
from .shards import make_shard
from .subprocesses import Caretaker, Worker, WorkerStopped, at_work, begin_to_serve, how_it_ended

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
    caretakers = [_Caretaker(waiting, events) for _ in range(min(num_workers, len(tasks)))]
    with at_work(caretakers):
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


class _Caretaker(Caretaker):
    """Looks after one worker: hands it tasks, starts another if it crashes."""

    def __init__(self, waiting: queue.SimpleQueue[Task], events: queue.SimpleQueue[tuple[str, Any]]):
        super().__init__(Worker(__name__))
        self._waiting = waiting
        self._events = events

    def run(self) -> None:
        try:
            while not self.worker.stopped:
                try:
                    task = self._waiting.get_nowait()
                except queue.Empty:
                    break
                self._events.put(("done", (task, self._make(task))))
        except WorkerStopped:
            pass
        except (CacheError, OSError) as error:
            if not self.worker.stopped:
                known = isinstance(error, CacheError)
                self._events.put(("error", error if known else CacheError(f"a worker process cannot run: {error}")))
        except BaseException as error:  # not lost: the main thread raises it, and would wait for ever without
            self._events.put(("error", error))
        finally:
            self.worker.close()

    def _make(self, task: Task) -> Result:
        crashes: dict[str, str] = {}
        while True:
            requests, replies = self.worker.pipes()
            reading: int | None = None
            try:
                requests.write(json.dumps({**task, "crashes": crashes}) + "\n")
                requests.flush()
                for line in replies:
                    if not line.endswith("\n"):
                        break  # it died while it wrote this
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
            status = self.worker.close()
            if -status not in CRASH_SIGNALS or reading is None:
                raise CacheError(_death(status, task, reading))
            crashes[str(reading)] = f"the reader crashed on it ({signal.Signals(-status).name})"


def _death(status: int, task: Task, reading: int | None) -> str:
    paths = [item["path"] for item in task["items"]]
    where = f"while reading {paths[reading]}" if reading is not None else "before it read a file"
    hint = "; if memory ran out, use fewer workers" if -status == signal.SIGKILL else ""
    return (
        f"a worker process {how_it_ended(status)} {where} (shard {task['index']} of {counted(len(paths), 'file')}, "
        f"from {paths[0]} to {paths[-1]}){hint}. Run again: finished shards are kept"
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
