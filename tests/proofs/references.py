"""Runs that are left alone, to compare with those that are not."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import Any

from .launches import ForkServer
from .runs import Course, TinyRun, outcome, traced_steps


@dataclass
class Reference:
    """A run that was left alone.

    Attributes
    ----------
    outcome, course : how it ended, and its steps
    seconds : it took
    """

    outcome: dict[str, Any]
    course: Course
    seconds: float


class References:
    """Uninterrupted runs to compare with, each made when it is first asked for."""

    def __init__(self, server: ForkServer):
        self._server = server
        self._lock = threading.Lock()
        self._made: dict[tuple[str, bool, int, bool], Reference] = {}

    def get(self, run: TinyRun, processes: int, sharded: bool = False) -> Reference:
        """How `run` ends if it is left alone, on a number of processes."""
        key = (run.settings, run.deterministic, processes, sharded)
        with self._lock:
            if key not in self._made:
                self._made[key] = self._make(
                    replace(run, save_dir=run.save_dir.parent / f"whole{len(self._made)}"), processes, sharded
                )
        return self._made[key]

    def _make(self, run: TinyRun, processes: int, sharded: bool) -> Reference:
        launch = self._server.launch(run.command_line(processes), processes, trace=True, sharded=sharded)
        statuses = launch.wait()
        assert not any(statuses), launch.output()
        seconds = time.monotonic() - launch.started
        return Reference(outcome(run.save_dir), Course(traced_steps(launch.trace)), seconds)
