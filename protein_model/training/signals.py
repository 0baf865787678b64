"""Signals that ask a run to stop: remembered when they come, acted on at the next step boundary.

Schedulers announce the end of a job by SIGTERM or SIGUSR1, people by SIGINT (Ctrl-C). Which of several processes got
one is not known to the others, so the trainer asks all of them at every step (`trainer`, `validation`); here is only
what one process knows.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: not finished, to be started again
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
# torchrun passes a terminal's Ctrl-C on to processes that the terminal has already told.
SAME_SIGNAL_SECONDS = 1.0
Batch = TypeVar("Batch")
_LAUNCHERS = frozenset({"accelerate", "accelerate-launch", "torchrun"})
_LAUNCHER_MODULES = frozenset({"accelerate.commands.launch", "torch.distributed.run", "torch.distributed.launch"})
_LINUX_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG, linux/prctl.h


class StopRequest:
    """Remembers the first signal. A second SIGINT ends the process at once.

    Python calls a signal's handler between two instructions of the main thread only, and a backward pass or a wait for
    other processes is one. So a thread of its own looks out for the second SIGINT.

    Attributes
    ----------
    received : the signal, None so far
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}
        self._pipe: int | None = None  # the interpreter writes the number of each signal there, as it comes
        self._previous_pipe = -1

    def __bool__(self) -> bool:
        return self.received is not None

    def install(self) -> None:
        """Take over the signals; does nothing outside the main thread, where Python does not allow it."""
        if threading.current_thread() is threading.main_thread():
            reading, self._pipe = os.pipe()
            os.set_blocking(self._pipe, False)
            self._previous_pipe = signal.set_wakeup_fd(self._pipe, warn_on_full_buffer=False)
            threading.Thread(target=_end_at_second_interrupt, args=(reading,), daemon=True).start()
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, self._remember)

    def uninstall(self) -> None:
        """Give the signals back to who had them."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()
        if self._pipe is not None:
            signal.set_wakeup_fd(self._previous_pipe)
            os.close(self._pipe)  # which ends the thread
            self._pipe = None

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received = signal.Signals(number)


def _end_at_second_interrupt(pipe: int) -> None:
    first: float | None = None
    while numbers := os.read(pipe, 64):
        now = time.monotonic()
        for number in numbers:
            if number not in SIGNALS:
                continue
            if first is None:
                first = now
            elif number == signal.SIGINT and now - first > SAME_SIGNAL_SECONDS:
                ctypes.CDLL(None).signal(int(signal.SIGINT), None)  # the default; Python allows it the main thread only
                os.kill(os.getpid(), signal.SIGINT)
    os.close(pipe)


def shielded(loader: Iterable[Batch]) -> Iterator[Batch]:
    """Iterate over a data loader, whose processes are started with the signals blocked.

    A scheduler or a terminal sends its signals to every process of a run, and without its loaders a trainer could not
    come to the next step boundary. The processes of a loader inherit what is blocked here for a moment.
    """
    batches = iter(loader)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        first = next(batches, None)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if first is not None:
        yield first
        yield from batches


def listen_to_trainer(worker: int) -> None:
    """Let a `shielded` loader process end by SIGTERM from its trainer, and of nobody else; it ends its loaders so."""
    if hasattr(signal, "sigwaitinfo"):
        threading.Thread(target=_end_when_told, args=(os.getppid(),), daemon=True).start()
    else:  # macOS does not tell who sends a signal
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _end_when_told(trainer: int) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != trainer:
        pass
    os._exit(0)


def follow_launcher() -> None:
    """Ask Linux to send SIGTERM to this process when its launcher dies.

    `accelerate launch` with one process does not pass SIGTERM on: it dies and would leave the trainer running. Without
    a launcher nothing is asked for, since a run started by `nohup` must outlive its shell.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid()
    if parent == 1 and "TORCHELASTIC_RUN_ID" in os.environ and not _is_launcher(parent):
        # torchrun died while this process was still importing; the other ones would be waited for in vain.
        os.kill(os.getpid(), signal.SIGTERM)
    if _is_launcher(parent):
        ctypes.CDLL(None).prctl(_LINUX_SET_PARENT_DEATH_SIGNAL, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:  # it died before it could be watched
            os.kill(os.getpid(), signal.SIGTERM)


def _is_launcher(process: int) -> bool:
    try:
        arguments = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:  # it is gone already, or belongs to somebody else
        return False
    return any(argument in _LAUNCHER_MODULES or Path(argument).name in _LAUNCHERS for argument in arguments)
