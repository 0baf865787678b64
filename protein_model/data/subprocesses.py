"""Python subprocesses that share the work on a cache, and talk JSON lines over pipes.

Plain subprocesses, not a `multiprocessing` pool: a pool's workers would run the main script's imports (torch among
them), and when one crashes a pool does not tell at what. What they do is left to the module whose `serve` they run.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

# The main process alone decides when a worker ends; batch systems signal all processes of a job, at any time.
START = (
    "import signal as s; [s.signal(n, s.SIG_IGN) for n in (s.SIGINT, s.SIGTERM, s.SIGUSR1, s.SIGUSR2)]; "
    "import importlib, json, sys; sys.path[:] = json.loads(sys.argv[2]); importlib.import_module(sys.argv[1]).serve()"
)


def available_processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class WorkerStopped(Exception):
    """A worker was told to stop before it was started."""


class Worker:
    """One subprocess that runs `serve()` of a module. One thread talks to it, and any other may stop it.

    Parameters
    ----------
    module : its full name
    arguments : what `serve` finds in `sys.argv[3:]`
    pass_fds : file descriptors that stay open in it
    """

    def __init__(self, module: str, arguments: Sequence[str] = (), pass_fds: Sequence[int] = ()):
        self._module = module
        self._arguments = arguments
        self._pass_fds = pass_fds
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False
        self._lock = threading.Lock()

    @property
    def stopped(self) -> bool:
        return self._stopped

    def pipes(self) -> tuple[IO[str], IO[str]]:
        """Where it reads and where it writes, after starting it if it does not run.

        Raises
        ------
        WorkerStopped : it is not to run any more
        OSError : it cannot be started
        """
        with self._lock:
            if self._stopped:
                raise WorkerStopped
            if self._process is None:
                # An empty entry, as in interactive sessions, is the folder of the moment.
                path = json.dumps([os.path.abspath(entry) for entry in sys.path])
                self._process = subprocess.Popen(
                    [sys.executable, "-c", START, self._module, path, *self._arguments],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    encoding="utf-8",
                    env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1"},
                    start_new_session=True,  # Ctrl-C is for the main process alone
                    pass_fds=self._pass_fds,
                )
            assert self._process.stdin is not None and self._process.stdout is not None
            return self._process.stdin, self._process.stdout

    def stop(self) -> None:
        """End the subprocess at once, and start none any more."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()

    def close(self) -> int:
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


class Caretaker(threading.Thread):
    """A thread that talks to a worker."""

    def __init__(self, worker: Worker):
        super().__init__(daemon=True)
        self.worker = worker


@contextlib.contextmanager
def at_work(caretakers: Sequence[Caretaker]) -> Iterator[None]:
    """Start caretakers, and end them with their workers in the end, whatever happens meanwhile."""
    try:
        for caretaker in caretakers:
            caretaker.start()
        yield
    finally:
        for caretaker in caretakers:
            caretaker.worker.stop()
        for caretaker in caretakers:
            if caretaker.is_alive():  # not so if an interruption came before it was started
                caretaker.join()


def begin_to_serve() -> Callable[..., None]:
    """To be called first in a worker; gives back a function that sends its keyword arguments as one message."""
    # Whatever a library prints must not mix with the messages.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(**message: Any) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    return send


def how_it_ended(status: int) -> str:
    """What the exit status of a worker that ended too early says."""
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"
