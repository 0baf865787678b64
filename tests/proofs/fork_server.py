"""A process that has imported everything once and forks training processes from itself, in milliseconds.

Each forked process runs the real `train_accelerate.py`, with a command line, with the environment that `torchrun`
would give it and with its output in a file. The server itself must stay single-threaded: a fork copies the calling
thread alone, and a lock that another one holds would stay locked in the copy. It refuses to fork otherwise.

Requests are JSON lines on standard input, each answered by a JSON line on standard output; `launches` is the client.

    {"launch": {"arguments", "processes", "environment", "log", "trace"}} -> {"pids": [...]}
    {"poll": [pid, ...]}                                      -> {"statuses": [exit status or null, ...]}
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import random
import runpy
import socket
import sys
import threading
import traceback
import warnings
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]
PORTS = range(20_000, 32_000)  # below those that systems give to outgoing connections
# The last of them are imported late in a run.
LONG_IMPORTS = (
    "protein_model.training.trainer",
    "protein_model.inference.design",
    "datasets",
    "tests.proofs.tracing",
)

Job = dict[str, Any]


def threads() -> list[str]:
    """Names of the threads of this process."""
    return [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]


def free_port() -> int:
    """A TCP port that nobody listens on."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def serve() -> tuple[Job, int] | None:
    """Answer requests. Returns None at the end of the input; in a forked process, its job and rank."""
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if "launch" in request:
            found = threads()
            if len(found) != 1:
                raise RuntimeError(f"the fork server has {len(found)} threads ({', '.join(found)}); a fork is not safe")
            job = request["launch"]
            job["port"] = free_port()
            pids: list[int] = []
            for rank in range(job["processes"]):
                pid = os.fork()
                if pid == 0:
                    # One process group per launch, so that loader workers are killed with it.
                    os.setpgid(0, pids[0] if pids else 0)
                    return job, rank
                os.setpgid(pid, pids[0] if pids else pid)
                pids.append(pid)
            answer(pids=pids)
        elif "poll" in request:
            answer(statuses=[status_of(pid) for pid in request["poll"]])
    return None


_ended: dict[int, int] = {}


def status_of(pid: int) -> int | None:
    """Exit status of a forked process (negative: the signal that killed it), None while it runs."""
    if pid not in _ended:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found == pid:
            _ended[pid] = os.waitstatus_to_exitcode(status)
    return _ended.get(pid)


def answer(**values: Any) -> None:
    """Reply to the client."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def become_trainer(job: Job, rank: int) -> None:
    """Make this process look as if a launcher had started it."""
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.environ.update(job["environment"])
    if job["processes"] > 1:
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(job["processes"]),
            LOCAL_WORLD_SIZE=str(job["processes"]),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(job["port"]),
        )
    sys.argv = [str(ROOT / "train_accelerate.py"), *job["arguments"]]
    if job["trace"] is not None:
        from tests.proofs.tracing import install_trace

        install_trace(Path(f"{job['trace']}.{rank}"), rank, job["processes"])


def run(job: Job, rank: int) -> NoReturn:
    """Run the entry point and end as a Python program does: threads are waited for, exit handlers run.

    Only the modules are not torn down one by one, which takes half a second and does nothing.
    """
    become_trainer(job, rank)
    status = 0
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main() -> None:
    sys.path.insert(0, str(ROOT))
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # Python's own, about forking with threads
    import torch

    torch.set_num_threads(1)
    for name in LONG_IMPORTS:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # the collector would write to every object, and so copy the shared memory
    found = serve()
    if found is not None:
        run(*found)


if __name__ == "__main__":
    main()
