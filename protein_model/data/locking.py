"""One process does the work, the others wait for it: a file lock that says so and that can be given up."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import CacheError, CacheInterrupted
from .progress import Progress

POLL_SECONDS = 0.2
SECONDS_BEFORE_WAITING_IS_TOLD = 5.0


class Locked:
    """Holds a file lock while the `with` block runs. The operating system releases it when the process dies.

    Parameters
    ----------
    path : of the lock file, which stays
    should_stop : polled while waiting
    display : where it is said that something else has the lock, if it takes long to get

    Raises
    ------
    CacheInterrupted : `should_stop` returned True while waiting
    CacheError : the file system does not lock files
    OSError : the lock file cannot be written
    """

    def __init__(self, path: Path, should_stop: Callable[[], bool], display: Progress):
        self._path = path
        self._lock = FileLock(path)
        self._should_stop = should_stop
        self._display = display

    def __enter__(self) -> None:
        started = time.monotonic()
        told = False
        while True:
            try:
                self._lock.acquire(timeout=POLL_SECONDS, poll_interval=POLL_SECONDS)
                return
            except Timeout:
                pass
            except NotImplementedError as error:
                raise CacheError(
                    f"--cache_dir {self._path.parent}: its file system does not lock files, so that several processes "
                    "could build one cache at the same time; choose a folder on another file system"
                ) from error
            if self._should_stop():
                raise CacheInterrupted(f"stopped while waiting for another process that holds {self._path}")
            if not told and time.monotonic() - started > SECONDS_BEFORE_WAITING_IS_TOLD:
                told = True
                self._display.say(f"waiting for another process that works on this cache (lock file {self._path})")

    def __exit__(self, *exception: object) -> None:
        self._lock.release()
