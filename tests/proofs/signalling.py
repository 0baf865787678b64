"""Run the trainer, ask it to stop by a signal again and again, let it finish, and say what became of it."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .killing import half_written
from .launches import ForkedLaunch, Launch, ProgramLaunch
from .runs import SIGNAL_SETTINGS, TinyRun, traced_steps

SIGNALS = (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)  # SIGTERM is what matters most
PHASES = ("caching", "starting", "training", "validation", "saving")
PATIENCE = 180.0  # the longest wait for a phase on a busy machine
CUT_OFF_SECONDS = 20.0  # in which a process that was not listening yet dies of a signal, on a busy machine
CACHING_SECONDS, STARTING_SECONDS, STEP_SECONDS, VALIDATION_SECONDS, SAVE_SECONDS = 0.8, 0.3, 0.2, 0.2, 0.06


@dataclass(frozen=True)
class Stop:
    """What came of one signal.

    Attributes
    ----------
    phase : in which it was meant to come; what the process does at that very instant is not known from outside
    number, target : which signal, and whom it was sent to
    statuses : exit statuses
    done : optimizer steps done when the launch ended
    committed : steps in the newest checkpoint
    steps_after : optimizer steps begun after the signal
    seconds : from the signal to the committed checkpoint; None where there was nothing new to save
    seconds_to_end : from the signal to the end of the last process
    finished : all epochs of the run are done
    complaints : what is wrong
    """

    phase: str
    number: signal.Signals
    target: str
    statuses: list[int]
    done: int
    committed: int
    steps_after: int
    seconds: float | None
    seconds_to_end: float
    finished: bool
    complaints: list[str]

    @property
    def before_listening(self) -> bool:
        """It ended the process by its default action, before the program had taken over the signals."""
        return any(status == -self.number for status in self.statuses)


def newest_checkpoint(save_dir: Path) -> tuple[int, Path | None]:
    """Most steps in a committed checkpoint, and its manifest."""
    found = [(json.loads(path.read_text())["checkpoint"]["step"], path) for path in save_dir.glob("*/manifest.json")]
    return max(found, default=(0, None))


def stop_by_signal(
    start: Callable[[], Launch], run: TinyRun, steps_per_epoch: int, phase: str, randomness: random.Random
) -> Stop | None:
    """Start a launch, wait for a phase, send a signal, wait for the end. None if it ended by itself before.

    Parameters
    ----------
    start : makes the launch
    steps_per_epoch : of the run, to know when validation begins
    """
    before, _ = newest_checkpoint(run.save_dir)
    launch = start()
    if not _reach(launch, run, before, steps_per_epoch, phase, randomness):
        launch.wait(PATIENCE)
        return None
    number = randomness.choice(SIGNALS)
    target, sent = _send(launch, number, randomness)
    if isinstance(launch, ForkedLaunch) and launch.wait_until(lambda: _cut_off(launch, number), CUT_OFF_SECONDS):
        launch.kill()  # one process was not listening yet, and the others would wait for it at the door
    statuses = launch.wait(PATIENCE)
    ended = time.time()
    assert launch.trace is not None
    steps = [step for step in traced_steps(launch.trace) if step.rank == 0]
    done = max([before, *(step.step for step in steps)])
    committed, manifest = newest_checkpoint(run.save_dir)
    saved_now = manifest is not None and committed > before
    stop = Stop(
        phase,
        number,
        target,
        statuses,
        done,
        committed,
        sum(step.time > sent for step in steps),
        manifest.stat().st_mtime - sent if saved_now and manifest is not None else None,
        ended - sent,
        done == steps_per_epoch * SIGNAL_SETTINGS[run.settings]["epochs"],
        [],
    )
    stop.complaints.extend(_complaints(stop, launch, run))
    return stop


def _complaints(stop: Stop, launch: Launch, run: TinyRun) -> list[str]:
    found = []
    where = f"{stop.number.name} to {stop.target} while {stop.phase}, exit statuses {stop.statuses}"
    if stop.committed != stop.done:
        found.append(f"{where}: {stop.done} steps done, but {stop.committed} committed")
    if half_written(run.save_dir):
        found.append(f"{where}: left {', '.join(half_written(run.save_dir))}")
    if "Traceback" in launch.output() and isinstance(launch, ForkedLaunch):
        found.append(f"{where}: a traceback")
    return [f"{text}\n{launch.output()}" for text in found]


def _cut_off(launch: ForkedLaunch, number: int) -> bool:
    statuses = launch.statuses()
    return None in statuses and -number in statuses


def _send(launch: Launch, number: signal.Signals, randomness: random.Random) -> tuple[str, float]:
    """Send it as a scheduler, a terminal or a person does. Returns to whom, and when (`time.time()`)."""
    everyone = randomness.random() < 0.4
    sent = time.time()
    if everyone:
        launch.signal_all(number)
        return "all processes", sent
    if isinstance(launch, ProgramLaunch):
        launch.signal(number)
        return "the launcher", sent
    assert isinstance(launch, ForkedLaunch)
    launch.signal(number, randomness.randrange(len(launch.pids)))
    return "one process", sent


def _reach(
    launch: Launch, run: TinyRun, before: int, steps_per_epoch: int, phase: str, randomness: random.Random
) -> bool:
    """Wait for a random instant of a phase. False if the launch ended before."""
    assert launch.trace is not None
    trace = Path(f"{launch.trace}.0")

    def lines() -> int:
        return trace.read_bytes().count(b"\n") if trace.exists() else 0

    # The trace begins a moment before the program listens to signals.
    if not launch.wait_until(trace.exists, PATIENCE):
        return False
    if phase == "caching":
        reached = launch.wait_until(lambda: any(run.cache_dir.glob("*/*")), PATIENCE)
        longest = CACHING_SECONDS
    elif phase == "starting":
        reached, longest = True, STARTING_SECONDS
    elif phase == "training":
        wanted = randomness.randint(1, steps_per_epoch)
        reached, longest = launch.wait_until(lambda: lines() >= wanted, PATIENCE), STEP_SECONDS
    elif phase == "validation":
        wanted = steps_per_epoch - before % steps_per_epoch
        reached, longest = launch.wait_until(lambda: lines() >= wanted, PATIENCE), VALIDATION_SECONDS
    else:
        reached, longest = launch.wait_until(lambda: bool(half_written(run.save_dir)), PATIENCE), SAVE_SECONDS
    if not reached:
        return False
    launch.linger(randomness.uniform(0, longest))
    return launch.running()
