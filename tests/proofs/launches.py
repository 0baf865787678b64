"""Start real training runs, by the fork server within milliseconds or by a launcher; watch, signal and kill them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
POLL_SECONDS = 0.002
TRAINING_ENVIRONMENT = {
    "ACCELERATE_USE_CPU": "true",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
# As `accelerate launch` has it from accelerate_configs/fsdp2_8.yaml.
SHARDED_ENVIRONMENT = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "CUDA_VISIBLE_DEVICES": "",
}


class Launch(ABC):
    """Processes of one launch.

    Attributes
    ----------
    log : file with what they print
    trace : what they compute (see `tracing`), without the ending `.rank`; None if it is not recorded
    started : `time.monotonic()`
    """

    def __init__(self, log: Path, trace: Path | None):
        self.log = log
        self.trace = trace
        self.started = time.monotonic()

    @abstractmethod
    def statuses(self) -> list[int | None]:
        """Exit status of each process that was started here, None while it runs, negative where a signal killed it."""

    @abstractmethod
    def running(self) -> bool:
        """Any process of the launch is still there."""

    @abstractmethod
    def signal_all(self, number: int) -> None:
        """Send a signal to all processes, loader workers too, as a terminal and some schedulers do."""

    def kill(self) -> None:
        """SIGKILL for all processes and their loader workers at once."""
        self.signal_all(signal.SIGKILL)

    def wait_until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait for a condition; False if the launch ended, or the time was up, before it held."""
        deadline = time.monotonic() + timeout
        checked = 0.0
        while time.monotonic() < deadline:
            if condition():
                return True
            if time.monotonic() > checked + 10 * POLL_SECONDS:
                if not self.running():
                    return False
                checked = time.monotonic()
            time.sleep(POLL_SECONDS)
        return False

    def linger(self, seconds: float) -> None:
        """Let it run for a time, or until it ends."""
        self.wait_until(lambda: False, seconds)

    def wait(self, timeout: float = 180) -> list[int]:
        """Exit statuses at the end. A launch that hangs is killed, and its output is in the error.

        Raises
        ------
        AssertionError : it did not end in time
        """
        deadline = time.monotonic() + timeout
        while self.running():
            if time.monotonic() > deadline:
                statuses = self.statuses()
                self.kill()
                raise AssertionError(f"no end after {timeout:g} s, exit statuses {statuses}:\n{self.output()}")
            time.sleep(5 * POLL_SECONDS)
        return [status for status in self.statuses() if status is not None]

    def output(self) -> str:
        """What the processes printed so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class ForkedLaunch(Launch):
    """Training processes forked from the server.

    Attributes
    ----------
    pids : in the order of their ranks
    """

    def __init__(self, server: ForkServer, pids: list[int], log: Path, trace: Path | None):
        super().__init__(log, trace)
        self._server = server
        self.pids = pids

    def statuses(self) -> list[int | None]:
        return self._server.ask(poll=self.pids)["statuses"]

    def running(self) -> bool:
        return None in self.statuses()

    def signal_all(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # all of them have ended
            os.killpg(self.pids[0], number)

    def signal(self, number: int, rank: int | None = None) -> None:
        """Send a signal to all training processes, or to one of them."""
        for pid in self.pids if rank is None else [self.pids[rank]]:
            if self._server.ask(poll=[pid])["statuses"] == [None]:
                os.kill(pid, number)


class ProgramLaunch(Launch):
    """Training started as a person does: by a command of its own.

    Parameters
    ----------
    launcher : the command in front of the script: the interpreter, `accelerate launch` or `torchrun`
    arguments : options of `train_accelerate.py`
    folder : for log and trace
    """

    def __init__(self, launcher: Sequence[str], arguments: Sequence[str], folder: Path):
        folder.mkdir(parents=True)
        super().__init__(folder / "log", folder / "trace")
        environment = {**os.environ, **TRAINING_ENVIRONMENT, "PYTHONPATH": str(ROOT), "PROOF_TRACE": str(self.trace)}
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [*launcher, str(Path(__file__).with_name("traced_training.py")), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    def statuses(self) -> list[int | None]:
        return [self._process.poll()]

    def running(self) -> bool:
        # A launcher may end before the training does.
        return self._process.poll() is None or bool(self.processes())

    def processes(self) -> list[int]:
        """All processes of the launch, found by their environment: torchrun puts workers into sessions of their own."""
        mark = f"PROOF_TRACE={self.trace}".encode()
        found = []
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                with contextlib.suppress(OSError):  # it has ended meanwhile, or belongs to somebody else
                    if mark in (process / "environ").read_bytes().split(b"\0"):
                        found.append(int(process.name))
        return found

    def signal(self, number: int) -> None:
        """Send a signal to the launcher alone."""
        self._process.send_signal(number)

    def signal_all(self, number: int) -> None:
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


class ForkServer:
    """One fork server process.

    Parameters
    ----------
    folder : for the logs and traces of its launches
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._lock = threading.Lock()
        self._launches = 0
        folder.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, **TRAINING_ENVIRONMENT, "PYTHONPATH": str(ROOT)}
        # The allocator of pyarrow has a thread of its own otherwise, and a process with threads must not fork.
        environment["JE_ARROW_MALLOC_CONF"] = "background_thread:false"
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("fork_server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,  # an interrupt from the keyboard is for the tests; this process ends with its input
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the fork server ended with status {self._process.wait()}; the reason is above")
        return json.loads(line)

    def launch(
        self, arguments: Sequence[str], processes: int = 1, trace: bool = False, sharded: bool = False
    ) -> ForkedLaunch:
        """Start `train_accelerate.py` with these arguments in several processes, as `torchrun` would.

        Parameters
        ----------
        trace : write down what is computed (see `tracing`)
        sharded : each process has a slice of the model (FSDP2)
        """
        with self._lock:
            number = self._launches = self._launches + 1
        log, traced = self._folder / f"{number}.log", self._folder / f"{number}.trace"
        job = {
            "arguments": list(arguments),
            "processes": processes,
            "environment": {**TRAINING_ENVIRONMENT, **(SHARDED_ENVIRONMENT if sharded else {})},
            "log": str(log),
            "trace": str(traced) if trace else None,
        }
        return ForkedLaunch(self, self.ask(launch=job)["pids"], log, traced if trace else None)

    def close(self) -> None:
        """End the server; launches that still run go on."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
