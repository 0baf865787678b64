"""Killed by SIGKILL at any instant, also in the middle of a save, a run ends as if nothing had happened.

    python -m pytest -m proof tests/proofs/test_kill_proof.py

The real `train_accelerate.py` is started in 1, 2 or 4 processes, killed at random instants, gone on with by
`--resume_from latest`, again and again until it ends, and compared with a run that was left alone. On a constant
number of processes everything has to be equal bit by bit: history, weights, optimizer state, weight average, best
model, and of every single step the samples, their noise and the gradient. On changing numbers of processes the samples
and their noise have to be equal bit by bit, and the results up to rounding; with `--deterministic` the results as well.

Environment variables: PROOF_KILLS (300), PROOF_WORKERS (runs side by side, 2), PROOF_SEED (0).
"""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pytest

from tests.proofs.killing import KilledRun, killed_run
from tests.proofs.references import Reference, References
from tests.proofs.runs import SETTINGS, SHARDS, TinyRun, difference, outcome, traced_steps

KILLS_PER_RUN = 8
SHARE_IN_SAVES = 0.6


@dataclass
class Tally:
    """Figures over all runs."""

    runs: int = 0
    kills: int = 0
    inside_saves: int = 0
    moved: int = 0
    steps_again: int = 0
    largest: float = 0.0
    failures: list[str] = field(default_factory=list)

    def add(self, run: TinyRun, report: KilledRun, reference: Reference, bitwise: bool) -> None:
        self.runs += 1
        self.kills += report.kills
        self.inside_saves += report.inside_saves
        self.moved += len(set(report.processes)) > 1
        self.steps_again += report.steps_done - report.steps_needed
        apart = difference(reference.outcome, outcome(run.save_dir))
        self.largest = max(self.largest, apart.largest)
        problems = list(report.complaints)
        problems += [f"{name}: only one of the runs has it" for name in apart.missing[:5]]
        if bitwise:
            problems += [f"{name}: differs" for name in apart.places[:5]]
        else:
            problems += apart.beyond_rounding()
        for number, trace in enumerate(report.traces):
            for deviation in reference.course.deviations(traced_steps(trace), bitwise)[:3]:
                problems.append(f"launch {number + 1}: {deviation}")
        if problems:
            details = "".join(f"\n  {problem}" for problem in problems)
            self.failures.append(f"{run} on {report.processes} processes, {report.kills} kills:{details}")

    def line(self, seconds: float) -> str:
        return (
            f"kill proof: {self.kills} kills, {self.inside_saves} of them inside a save, in {self.runs} runs "
            f"({self.moved} on changing numbers of processes), {60 * self.kills / seconds:.0f} kills a minute; steps "
            f"done again {self.steps_again} ({self.steps_again / max(self.kills, 1):.2f} per kill); largest difference "
            f"where rounding is allowed {self.largest:.1e}; runs that do not match: {len(self.failures)}"
        )


@pytest.fixture
def kill(server, structures, cache_dir, tmp_path):
    """Kill runs until there have been so many kills; gives the tally."""
    references = References(server)

    def repeat(kills: int, plans, seed: int, workers: int, kills_per_run: int) -> Tally:
        tally, lock = Tally(), threading.Lock()
        numbers = iter(range(10**9))

        def work() -> None:
            while True:
                with lock:
                    if tally.kills >= kills:
                        return
                    number = next(numbers)
                randomness = random.Random(f"{seed}/{number}")
                settings, processes, deterministic = plans[number % len(plans)]
                run = TinyRun(settings, deterministic, structures, cache_dir, tmp_path / f"run{number}")
                reference = references.get(run, processes[0])
                if randomness.random() < 0.1:
                    run = replace(run, cache_dir=tmp_path / f"cache{number}")  # killed while it is built as well
                report = killed_run(
                    server, run, processes, kills_per_run, SHARE_IN_SAVES, 0.8 * reference.seconds, randomness
                )
                with lock:
                    tally.add(run, report, reference, bitwise=deterministic or len(processes) == 1)

        with ThreadPoolExecutor(workers) as pool:
            for worker in [pool.submit(work) for _ in range(workers)]:
                worker.result()
        return tally

    return repeat


def test_killed_a_few_times(kill):
    """The proof in small, for every day."""
    tally = kill(3, [("loader workers", (1,), False)], seed=0, workers=1, kills_per_run=3)
    assert tally.kills >= 3
    assert not tally.failures, "\n".join(tally.failures)


@pytest.mark.proof
def test_killed_hundreds_of_times(kill, deterministic_option, figures, proof_size):
    plans = []
    for number, settings in enumerate(SETTINGS):
        plans.append((settings, ((1, 2, 4)[number % 3],), False))
        plans.append((settings, (1, 2, SHARDS), deterministic_option and number % 2 == 0))
    wanted = proof_size("PROOF_KILLS", 300)
    started = time.monotonic()
    tally = kill(wanted, plans, proof_size("PROOF_SEED", 0), proof_size("PROOF_WORKERS", 2), KILLS_PER_RUN)
    figures(tally.line(time.monotonic() - started))
    assert tally.kills >= wanted
    assert tally.inside_saves >= wanted / 10
    assert not tally.failures, "\n".join(tally.failures)
