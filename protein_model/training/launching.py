"""What a launch on several processes adds to a run: the learning rate for the larger batch, and who waits for whom."""

from __future__ import annotations

import atexit
import json
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from accelerate.utils import InitProcessGroupKwargs
from torch.distributed import DistError, PrefixStore, TCPStore

from ..errors import UserError
from ..wording import counted

BEAT_SECONDS = 2.0
SECONDS_BEFORE_WAITING_IS_TOLD = 60.0
SECONDS_UNTIL_PRESUMED_DEAD = 30.0


class LaunchError(UserError, RuntimeError):
    """A run cannot be launched in this way."""


def refuse_different_data(fingerprints: Sequence[str], pdb_path: str | None) -> None:
    """Refuse a launch whose processes found different data: a folder that is another one on each machine, or a cache
    that is being rebuilt.

    Parameters
    ----------
    fingerprints : of the data, by process
    """
    for process, found in enumerate(fingerprints):
        if found != fingerprints[0]:
            raise LaunchError(
                f"--pdb_path {pdb_path}: process {process} found other data than process 0; they must be the same on "
                "all machines"
            )


def scaled_learning_rate(rate: float, rule: str, shards: int) -> float:
    """Learning rate for a global batch of `shards` micro-batches, given that for one.

    Shards are the processes that a run began with, times its gradient accumulation. They stay when it goes on with
    another number of processes, and so does the rate.

    Parameters
    ----------
    rule : "linear", the rate per structure stays (Goyal et al. 2017); "sqrt", the noise of an update stays (Krizhevsky
        2014), which suits Adam; "none"
    """
    return rate * {"none": 1.0, "sqrt": math.sqrt(shards), "linear": float(shards)}[rule]


def describe_batch(
    batch_size: int | None, batch_residues: int | None, shards: int, processes: int, lengths: np.ndarray, steps: int
) -> str:
    """The batch of an optimizer step in words.

    Parameters
    ----------
    batch_size, batch_residues : per process and micro-batch
    shards : micro-batches per optimizer step, over all processes
    lengths : (structures,) residues of the training structures
    steps : optimizer steps per epoch
    """
    limits = [counted(batch_size, "structure")] if batch_size is not None else []
    limits += [counted(batch_residues, "residue")] if batch_residues is not None else []
    per_process = shards // processes
    return (
        f"Global batch: {processes} process{'es' if processes > 1 else ''} x {per_process} "
        f"micro-batch{'es' if per_process > 1 else ''} of at most {' and '.join(limits)}; on average "
        f"{len(lengths) / steps:,.1f} structures with {lengths.sum() / steps:,.0f} residues per optimizer step"
    )


def process_group_options(timeout_seconds: float) -> InitProcessGroupKwargs:
    """How long a process waits for the others before it gives up."""
    return InitProcessGroupKwargs(timeout=timedelta(seconds=timeout_seconds))


@dataclass
class _Report:
    """What is known of one process.

    Attributes
    ----------
    place : what it does
    seconds : for how long when it reported, by its own clock
    name : host and process number
    beat : counts its reports
    heard : when the newest one came, by the clock of who watches
    """

    place: str
    seconds: float
    name: str
    beat: int
    heard: float

    def age(self, now: float) -> float:
        """Seconds that it has been at its place, if it still is there."""
        return self.seconds + now - self.heard


class Whereabouts:
    """Every process tells what it does; the main process says who keeps the others waiting.

    A thread of each process reports every few seconds through the store that the launcher has for finding each other,
    so it works while the process itself waits in a collective call, with any backend. With one process it does nothing.

    Parameters
    ----------
    rank, processes : of this process, and how many there are
    say : prints a line; used by the main process, and by another one where the main process is silent
    timeout_seconds : after which waiting ends in an error; it is told well before
    """

    def __init__(self, rank: int, processes: int, say: Callable[[str], None], timeout_seconds: float):
        self._rank = rank
        self._processes = processes
        self._say = say
        self._timeout = timeout_seconds
        self._tell_after = self._next_told = min(SECONDS_BEFORE_WAITING_IS_TOLD, timeout_seconds / 3)
        self._place = ("starting", time.monotonic())
        self._reports: dict[int, _Report] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        if processes > 1 and "MASTER_ADDR" in os.environ:
            self._thread = threading.Thread(target=self._run, name="whereabouts", daemon=True)
            self._thread.start()
            # A thread that talks to the store while the program ends would make it abort, with another exit status.
            atexit.register(self.close)

    def at(self, place: str) -> None:
        """Say what this process does from now on."""
        self._place = (place, time.monotonic())

    def close(self) -> None:
        """Stop reporting."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(2 * BEAT_SECONDS)

    def _run(self) -> None:
        try:
            store = PrefixStore(
                "whereabouts",
                # A connection of its own: the process group's may be held by a call that waits.
                TCPStore(
                    os.environ["MASTER_ADDR"],
                    int(os.environ["MASTER_PORT"]),
                    is_master=False,
                    wait_for_workers=False,
                    timeout=timedelta(seconds=10),
                ),
            )
            beat = 0
            while not self._stop.wait(min(BEAT_SECONDS, self._tell_after / 4)):
                beat += 1
                self._publish(store, beat)
                self._listen(store)
                text = self._told()
                if text:
                    self._say(text)
        except (DistError, RuntimeError) as error:
            # The store ends with the process that has it; whoever is left has lost more than these reports.
            if self._rank == 0 and not self._stop.is_set():
                self._say(f"WARNING: processes can no longer tell what they do ({error})")

    def _publish(self, store: PrefixStore, beat: int) -> None:
        place, since = self._place
        document = {
            "place": place,
            "seconds": time.monotonic() - since,
            "name": f"host {socket.gethostname()}, process number {os.getpid()}",
            "beat": beat,
        }
        store.set(str(self._rank), json.dumps(document))

    def _listen(self, store: PrefixStore) -> None:
        watched = range(self._processes) if self._rank == 0 else [0]
        for rank in watched:
            if not store.check([str(rank)]):
                continue
            document = json.loads(store.get(str(rank)))
            known = self._reports.get(rank)
            heard = known.heard if known is not None and known.beat == document["beat"] else time.monotonic()
            self._reports[rank] = _Report(**document, heard=heard)

    def _told(self) -> str:
        """What there is to say now; empty if nothing."""
        now = time.monotonic()
        limit = min(SECONDS_UNTIL_PRESUMED_DEAD, self._timeout / 3)
        silent = {rank: now - report.heard for rank, report in self._reports.items() if now - report.heard > limit}
        if self._rank == 0:
            # While one moves, nobody can have waited for long: they meet at every step.
            still = min((report.age(now) for rank, report in self._reports.items() if rank not in silent), default=0.0)
        else:
            still = silent.get(0, 0.0)
        if still < self._next_told:
            if still < self._tell_after:
                self._next_told = self._tell_after
            return ""
        self._next_told = 2 * still
        if self._rank != 0:
            return (
                f"WAITING: process {self._rank} has not heard of process 0 ({self._reports[0].name}) for {still:,.0f} s"
            )
        limits = f"at most {self._timeout:,.0f} s (--timeout_minutes)"
        return f"WAITING for {still:,.0f} s, {limits}: {self._standstill(silent)}"

    def _standstill(self, silent: Mapping[int, float]) -> str:
        """Who is where; first those without a sign of life, then those that came to their place first."""
        parts = [
            f"process {rank} ({self._reports[rank].name}) has given no sign of life for {seconds:,.0f} s and may be "
            f"dead; it was at: {self._reports[rank].place}"
            for rank, seconds in sorted(silent.items())
        ]
        now = time.monotonic()
        places: dict[str, list[int]] = {}
        for rank, report in sorted(self._reports.items(), key=lambda item: -item[1].age(now)):
            if rank not in silent:
                places.setdefault(report.place, []).append(rank)
        for place, ranks in places.items():
            seconds = self._reports[ranks[0]].age(now)
            if len(ranks) == 1:
                who = f"process {ranks[0]} ({self._reports[ranks[0]].name}) has"
            else:
                who = f"processes {', '.join(map(str, sorted(ranks)))} have"
            parts.append(f"{who} been for {seconds:,.0f} s at: {place}")
        return "; ".join(parts)
