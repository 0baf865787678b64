"""Runs that are stopped and go on elsewhere: on another number of processes, sharded or not."""

from __future__ import annotations

import random
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .launches import ForkServer, Launch
from .references import Reference
from .runs import TinyRun, TracedStep, difference


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


@dataclass
class Comparison:
    """Moved runs against runs that were left alone.

    Attributes
    ----------
    largest, recovery : differences, see `runs.Difference`
    places : values that are not bitwise equal
    failures : what must not be, in words
    """

    largest: float = 0.0
    recovery: float = 0.0
    places: int = 0
    failures: list[str] = field(default_factory=list)

    def add(
        self,
        found: dict[str, Any],
        traced: Sequence[Sequence[TracedStep]],
        reference: Reference,
        against: str,
        bitwise: bool,
        same_gradients: bool,
    ) -> None:
        """Compare one run.

        Parameters
        ----------
        found, traced : how it ended, and the steps of its launches
        against : what it is compared with, in words
        bitwise : its end has to be equal to the last bit, otherwise up to rounding
        same_gradients : so has the gradient of every step
        """
        apart = difference(reference.outcome, found)
        self.largest, self.recovery = max(self.largest, apart.largest), max(self.recovery, apart.recovery)
        self.places += len(apart.places)
        problems = [f"{name} is missing" for name in apart.missing[:3]]
        problems += [f"{place} differs" for place in apart.places[:3]] if bitwise else apart.beyond_rounding()
        for launch in traced:
            problems += reference.course.deviations(launch, same_gradients)
        self.failures += [f"{against}: {problem}" for problem in problems]
