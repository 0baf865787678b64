"""Runs that are stopped and go on elsewhere: on another number of processes, sharded or not."""

from __future__ import annotations

import random
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .launches import ForkServer, Launch
from .runs import TinyRun


@dataclass(frozen=True)
class Place:
    """Where a part of a run is done.

    Attributes
    ----------
    processes : that share it
    sharded : each has a slice of the model (FSDP2)
    """

    processes: int
    sharded: bool = False

    def __str__(self) -> str:
        return f"{self.processes} sharded" if self.sharded else str(self.processes)


def moved(server: ForkServer, run: TinyRun, course: Sequence[Place], randomness: random.Random) -> list[Launch]:
    """Run at the places of `course` in turn, for some steps each, until SIGTERM or SIGKILL; to the end at the last."""
    launches: list[Launch] = []
    for turn, place in enumerate(course):
        launch = server.launch(run.command_line(place.processes), place.processes, trace=True, sharded=place.sharded)
        assert launch.trace is not None
        trace, last = Path(f"{launch.trace}.0"), turn == len(course) - 1
        if not last:
            wanted = randomness.randint(2, 4)
            launch.wait_until(lambda t=trace, w=wanted: t.exists() and t.read_bytes().count(b"\n") >= w, 120)
            launch.signal_all(randomness.choice((signal.SIGTERM, signal.SIGKILL)))
        statuses = launch.wait()
        assert not last or not any(statuses), launch.output()
        launches.append(launch)
    return launches
