"""Comparing sequences in several processes. Each asks for the next sequence and is told what the others have linked.

The words of all sequences lie in one file that has no name and that all processes map. So they share the memory, and
nothing stays behind however they end.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator
from typing import IO

import numpy as np

from ..errors import first_line
from .errors import SplitError
from .linkage import Labels, Link, new_links
from .subprocesses import begin_to_serve, how_it_ended, start_worker
from .word_index import WordIndex

_INSTEAD = "--cluster_file takes the groups that another program made"


def links_by_workers(index: WordIndex, num_workers: int) -> Generator[list[Link], None, None]:
    """Links that make the clusters of an index, sequence by sequence in no order.

    Closing the generator ends the processes.

    Raises
    ------
    SplitError : a process was killed or cannot run, or there is no room for the words
    """
    events: queue.SimpleQueue[list[Link] | SplitError] = queue.SimpleQueue()
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(tempfile.TemporaryFile())
        try:
            layout = _write(index, file)
        except OSError as error:
            size = sum(array.nbytes for array in index.arrays.values())
            raise SplitError(
                f"no room for {size / 1e6:,.0f} MB in {tempfile.gettempdir()}, to group sequences by similarity "
                f"({error.strerror}); name another folder in the environment variable TMPDIR, or {_INSTEAD}"
            ) from error
        search = _Search(len(index))
        workers = [_Worker(search, file.fileno(), layout, events) for _ in range(num_workers)]
        try:
            for worker in workers:
                worker.start()
            for _ in range(len(index)):
                event = events.get()
                if isinstance(event, SplitError):
                    raise event
                yield event
        finally:
            for worker in workers:
                worker.stop()
            for worker in workers:
                if worker.is_alive():  # not so if an interruption came before it was started
                    worker.join()


class _Search:
    """What is still to be compared, and what was linked; of all threads."""

    def __init__(self, count: int):
        self.links: list[Link] = []
        self._queries = iter(range(count))
        self._lock = threading.Lock()

    def next_query(self) -> int | None:
        with self._lock:
            return next(self._queries, None)


class _Worker(threading.Thread):
    """Looks after one subprocess."""

    def __init__(
        self, search: _Search, descriptor: int, layout: str, events: queue.SimpleQueue[list[Link] | SplitError]
    ):
        super().__init__(daemon=True)
        self._search = search
        self._descriptor = descriptor
        self._layout = layout
        self._events = events
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False
        self._lock = threading.Lock()

    def run(self) -> None:
        try:
            with self._lock:
                if self._stopped:
                    return
                self._process = start_worker(
                    __name__, (str(self._descriptor), self._layout), pass_fds=(self._descriptor,)
                )
            with self._process as process:
                self._converse(process)
        except OSError as error:
            self._events.put(_failed(f"cannot run ({first_line(error)})"))

    def stop(self) -> None:
        """End the subprocess at once."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()

    def _converse(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None and process.stdout is not None
        told = 0
        while (query := self._search.next_query()) is not None:
            news = self._search.links[told:]
            told += len(news)
            reply = ""
            with contextlib.suppress(BrokenPipeError):  # it has died, which its exit status tells more about
                process.stdin.write(json.dumps([query, news]) + "\n")
                process.stdin.flush()
                reply = process.stdout.readline()
            if not reply:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
                self._events.put(_failed(how_it_ended(process.wait())))
                return
            links = [(first, second) for first, second in json.loads(reply)["links"]]
            self._search.links += links
            self._events.put(links)


def _failed(how: str) -> SplitError:
    return SplitError(f"a process that groups sequences by similarity {how}; {_INSTEAD}")


def _write(index: WordIndex, file: IO[bytes]) -> str:
    """Write the arrays of an index one after another, and tell where each of them is."""
    layout = {}
    for name, array in index.arrays.items():
        file.seek(-file.tell() % array.itemsize, os.SEEK_CUR)
        layout[name] = (array.dtype.str, len(array), file.tell())
        file.write(np.ascontiguousarray(array).data)
    file.flush()
    return json.dumps(layout)


def _read(descriptor: int, layout: str) -> WordIndex:
    content = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    return WordIndex(
        {
            name: np.frombuffer(content, dtype, length, offset)
            for name, (dtype, length, offset) in json.loads(layout).items()
        }
    )


def serve() -> None:
    """Main loop of a worker: a query and new links per line on standard input, the query's links on standard output."""
    send = begin_to_serve()
    index = _read(int(sys.argv[3]), sys.argv[4])
    labels = Labels(len(index))
    for line in sys.stdin:
        query, news = json.loads(line)
        for link in news:
            labels.join(*link)
        try:
            send(links=new_links(index, query, labels))
        except BrokenPipeError:
            # The main process was killed. Nobody waits for what is left, and closing the pipe again would complain.
            os._exit(1)
