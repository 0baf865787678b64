"""Run the trainer, kill it again and again, let it finish, and say what became of it."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .launches import ForkedLaunch, ForkServer
from .runs import TinyRun, traced_steps

LAUNCH_SECONDS = 180  # the longest that a launch may take on a busy machine before it counts as hanging
SAVE_SECONDS = 0.06  # about what a save takes; a kill within it comes at a random instant of this length


@dataclass
class KilledRun:
    """A run that has been killed and has then finished.

    Attributes
    ----------
    processes : of each launch; all but the last one were killed
    inside_saves : kills that left a half-written or half-replaced checkpoint
    steps_done, steps_needed : optimizer steps that all launches did together, and those of the whole run
    traces : one per launch
    complaints : what is wrong with it, apart from its outcome
    """

    processes: list[int] = field(default_factory=list)
    inside_saves: int = 0
    steps_done: int = 0
    steps_needed: int = 0
    traces: list[Path] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        return len(self.processes) - 1


def killed_run(
    server: ForkServer,
    run: TinyRun,
    processes: Sequence[int],
    kills: int,
    share_in_saves: float,
    typical_seconds: float,
    randomness: random.Random,
) -> KilledRun:
    """Start a run, kill it up to `kills` times, each time go on with `--resume_from latest`, and let it finish.

    Parameters
    ----------
    processes : a number is drawn from these for each launch
    share_in_saves : of the kills, those that wait for a save to begin
    typical_seconds : from the start to the end of a launch that is not killed
    """
    report = KilledRun()
    while True:
        count = randomness.choice(processes)
        launch = server.launch(run.command_line(count), count, trace=True)
        report.processes.append(count)
        assert launch.trace is not None
        report.traces.append(launch.trace)
        interrupted = report.kills < kills and _kill_at_random(
            launch, run.save_dir, share_in_saves, typical_seconds, randomness
        )
        statuses = launch.wait(LAUNCH_SECONDS)
        steps = {step.step for step in traced_steps(launch.trace) if step.rank == 0}
        report.steps_done += len(steps)
        report.steps_needed = max(report.steps_needed, *steps, 0)
        if interrupted and -9 in statuses:
            report.inside_saves += bool(half_written(run.save_dir))
            continue
        if any(statuses):
            report.complaints.append(f"exit statuses {statuses}:\n{launch.output()}")
        elif leftovers := sorted(
            path.name for path in run.save_dir.iterdir() if path.name.startswith(".") and path.name != ".lock"
        ):
            report.complaints.append(f"leftovers of interrupted saves: {', '.join(leftovers)}")
        return report


def _kill_at_random(
    launch: ForkedLaunch, save_dir: Path, share_in_saves: float, typical_seconds: float, randomness: random.Random
) -> bool:
    """Wait for a random instant and kill. False if the launch ended before."""
    if randomness.random() < share_in_saves:
        for _ in range(randomness.randint(1, 3)):
            if not launch.wait_until(lambda: not half_written(save_dir), LAUNCH_SECONDS):
                return False
            if not launch.wait_until(lambda: bool(half_written(save_dir)), LAUNCH_SECONDS):
                return False
        wait = randomness.uniform(0, SAVE_SECONDS)
    else:
        wait = randomness.uniform(0, typical_seconds)
    launch.linger(wait)
    if len(launch.pids) > 1 and randomness.random() < 0.2:
        # One process dies, as by the out-of-memory killer, and the others have a moment to notice and do harm.
        launch.signal(9, randomness.randrange(len(launch.pids)))
        launch.linger(randomness.uniform(0, 0.5))
    launch.kill()
    return True


def half_written(save_dir: Path) -> list[str]:
    """Checkpoints that are being written, or are being replaced."""
    try:
        return [name for name in os.listdir(save_dir) if name.startswith((".incomplete", ".replaced"))]
    except FileNotFoundError:
        return []
