"""Comparing sequences in several processes. Each asks for the next sequence and is told what the others have linked.

The words of all sequences lie in one file that has no name and that all processes map. So they share the memory, and
nothing stays behind however they end.
"""

from __future__ import annotations

import contextlib
import io
import json
import mmap
import os
import queue
import sys
import tempfile
import threading
from collections.abc import Generator
from typing import IO

import numpy as np

from ..errors import first_line
from .errors import SplitError
from .linkage import Labels, Link, new_links
from .subprocesses import Caretaker, Worker, WorkerStopped, at_work, begin_to_serve, how_it_ended
from .word_index import WordIndex

_INSTEAD = "--cluster_file takes the groups that another program made"


def links_by_workers(index: WordIndex, num_workers: int) -> Generator[list[Link], None, None]:
    """Links that make the clusters of an index, sequence by sequence in no order.

    Closing the generator ends the processes.

    Raises
    ------
    SplitError : a process was killed or cannot run, or there is no room for the words
    """
    events: queue.SimpleQueue[list[Link] | BaseException] = queue.SimpleQueue()
    with contextlib.ExitStack() as stack:
        try:
            # Without a buffer: what cannot be written must not be tried again on closing.
            file = stack.enter_context(tempfile.TemporaryFile(buffering=0))
            layout = _write(index, file)
        except OSError as error:
            size = sum(array.nbytes for array in index.arrays.values())
            raise SplitError(
                f"no room for {size / 1e6:,.0f} MB of temporary files, to group sequences by similarity "
                f"({error.strerror}); name a folder in the environment variable TMPDIR, or {_INSTEAD}"
            ) from error
        search = _Search(len(index))
        descriptor = file.fileno()
        caretakers = [
            _Caretaker(search, Worker(__name__, (str(descriptor), layout), pass_fds=(descriptor,)), events)
            for _ in range(num_workers)
        ]
        with at_work(caretakers):
            for _ in range(len(index)):
                event = events.get()
                if isinstance(event, BaseException):
                    raise event
                yield event


class _Search:
    """What is still to be compared, and what was linked; of all threads."""

    def __init__(self, count: int):
        self.links: list[Link] = []
        self._queries = iter(range(count))
        self._lock = threading.Lock()

    def next_query(self) -> int | None:
        with self._lock:
            return next(self._queries, None)


class _Caretaker(Caretaker):
    """Looks after one worker: hands it sequences and what the others have linked."""

    def __init__(self, search: _Search, worker: Worker, events: queue.SimpleQueue[list[Link] | BaseException]):
        super().__init__(worker)
        self._search = search
        self._events = events

    def run(self) -> None:
        try:
            self._converse(*self.worker.pipes())
        except WorkerStopped:
            pass
        except OSError as error:
            self._events.put(_failed(f"cannot run ({first_line(error)})"))
        except BaseException as error:  # not lost: the main thread raises it, and would wait for ever without
            self._events.put(error)
        finally:
            self.worker.close()

    def _converse(self, requests: IO[str], replies: IO[str]) -> None:
        told = 0
        while (query := self._search.next_query()) is not None:
            news = self._search.links[told:]
            told += len(news)
            reply = ""
            with contextlib.suppress(BrokenPipeError):  # it has died, which its exit status tells more about
                requests.write(json.dumps([query, news]) + "\n")
                requests.flush()
                reply = replies.readline()
            if not reply.endswith("\n"):  # it died before the end of the line
                self._events.put(_failed(how_it_ended(self.worker.close())))
                return
            links = [(first, second) for first, second in json.loads(reply)["links"]]
            self._search.links += links
            self._events.put(links)


def _failed(how: str) -> SplitError:
    return SplitError(
        f"a process that groups sequences by similarity {how}; if memory ran out, give this program fewer processors, "
        f"such as by taskset, or {_INSTEAD}"
    )


def _write(index: WordIndex, file: io.FileIO) -> str:
    """Write the arrays of an index one after another, and tell where each of them is."""
    layout = {}
    for name, array in index.arrays.items():
        file.seek(-file.tell() % array.itemsize, os.SEEK_CUR)
        layout[name] = (array.dtype.str, len(array), file.tell())
        left = np.ascontiguousarray(array).view(np.uint8).data
        while left:
            left = left[file.write(left) :]
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
