"""Python subprocesses that share the work on a cache, and talk JSON lines over pipes.

Plain subprocesses, not a `multiprocessing` pool: a pool's workers would run the main script's imports (torch among
them), and when one crashes a pool does not tell at what. What they do is left to the module whose `serve` they run.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

START = (
    "import importlib, json, sys; sys.path[:] = json.loads(sys.argv[2]); importlib.import_module(sys.argv[1]).serve()"
)


def available_processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start_worker(module: str, arguments: Sequence[str] = (), pass_fds: Sequence[int] = ()) -> subprocess.Popen[str]:
    """Start a subprocess that runs `serve()` of a module.

    Parameters
    ----------
    module : its full name
    arguments : what `serve` finds in `sys.argv[3:]`
    pass_fds : file descriptors that stay open in it
    """
    return subprocess.Popen(
        # An empty entry, as in interactive sessions, is the folder of the moment.
        [sys.executable, "-c", START, module, json.dumps([os.path.abspath(path) for path in sys.path]), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1"},
        start_new_session=True,  # Ctrl-C is for the main process alone
        pass_fds=pass_fds,
    )


def begin_to_serve() -> Callable[..., None]:
    """To be called first in a worker; gives back a function that sends its keyword arguments as one message."""
    # The main process alone decides when a worker ends; batch systems signal all processes of a job.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
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
