"""SIGTERM, SIGINT and SIGUSR1 at any instant lead to one committed checkpoint, and no step is lost.

    python -m pytest -m proof tests/proofs/test_signal_proof.py

Runs are asked to stop at random instants of building the cache, starting, training, validation and saving, gone on with
by `--resume_from latest`, stopped again, and in the end compared bit by bit with a run that was left alone. The signal
goes to all processes, as from a terminal and some schedulers, to one of them, or to the launcher alone. Many stops come
from the fork server (1 and 2 processes); others from `python`, `accelerate launch` and `torchrun` (2 processes), which
start a hundred times slower.

Environment variables: PROOF_SIGNALS (100, by the fork server), PROOF_SIGNALS_PER_LAUNCHER (20, by each of the others),
PROOF_WORKERS (runs side by side, 2), PROOF_SEED (0).
"""

import random
import statistics
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest

from protein_model.training.signals import EXIT_STOPPED
from tests.proofs.launches import ROOT, Launch, ProgramLaunch
from tests.proofs.references import Reference, References
from tests.proofs.runs import SIGNAL_SETTINGS, TinyRun, difference, outcome, traced_steps
from tests.proofs.signalling import PHASES, Stop, stop_by_signal

STOPS_PER_RUN = 6
LAUNCHERS = {
    "python": ([sys.executable], 1),
    "accelerate launch": (
        [
            *(sys.executable, "-m", "accelerate.commands.launch"),
            *("--config_file", str(ROOT / "accelerate_configs" / "cpu.yaml")),
        ],
        1,
    ),
    "torchrun": (
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"),
        ],
        2,
    ),
}


@dataclass
class Tally:
    """Figures over all stops of one launcher."""

    launcher: str
    stops: list[Stop] = field(default_factory=list)
    runs: int = 0
    failures: list[str] = field(default_factory=list)

    def add(self, stop: Stop) -> None:
        self.stops.append(stop)
        self.failures += stop.complaints
        if self.launcher not in ("fork server", "python"):
            expected = set(stop.statuses) - {0}  # other launchers have exit statuses of their own
        elif stop.before_listening and not stop.steps_after:
            expected = set(stop.statuses)  # nothing done since the launch, and perhaps other processes to wait for
        elif stop.finished and set(stop.statuses) == {0}:
            expected = {0}  # the last question whether to stop had been asked; the run is complete
        else:
            expected = {EXIT_STOPPED}
        if set(stop.statuses) != expected:
            self.failures.append(f"exit statuses {stop.statuses} after {stop.number.name} to {stop.target}: {stop}")

    def end(self, run: TinyRun, reference: Reference) -> None:
        """Compare a run that has ended with one that was left alone."""
        self.runs += 1
        apart = difference(reference.outcome, outcome(run.save_dir))
        self.failures += [f"{run}: {name} differs" for name in [*apart.missing, *apart.places][:5]]

    def line(self) -> str:
        seconds = [stop.seconds for stop in self.stops if stop.seconds is not None]
        saved = f"{statistics.median(seconds):.2f} s, at most {max(seconds):.2f} s" if seconds else "-"
        phases = ", ".join(f"{count} {phase}" for phase, count in sorted(Counter(s.phase for s in self.stops).items()))
        signals = ", ".join(f"{n} {name}" for name, n in sorted(Counter(s.number.name for s in self.stops).items()))
        statuses = sorted(Counter(status for stop in self.stops for status in set(stop.statuses)).items())
        return (
            f"signal proof, {self.launcher}: {len(self.stops)} stops ({phases}; {signals}) in {self.runs} runs; steps "
            f"lost {sum(stop.done - stop.committed for stop in self.stops)}, begun after the signal at most "
            f"{max((stop.steps_after for stop in self.stops), default=0)}; from signal to committed checkpoint, median "
            f"{saved}; exit statuses {', '.join(f'{status} ({count} times)' for status, count in statuses)}; failures "
            f"{len(self.failures)}"
        )


@pytest.fixture
def stop_runs(server, structures, tmp_path):
    """Stop runs of one launcher so many times; gives the tally."""

    def repeat(launcher: str, stops: int, seed: int, workers: int, plans: list[tuple[str, int]]) -> Tally:
        references = References(server)
        tally, lock = Tally(launcher), threading.Lock()
        numbers = iter(range(10**9))

        def start(run: TinyRun, processes: int, folder: Path) -> Launch:
            command_line = run.command_line(processes)
            if launcher == "fork server":
                return server.launch(command_line, processes, trace=True)
            return ProgramLaunch(LAUNCHERS[launcher][0], command_line, folder)

        def work() -> None:
            while True:
                with lock:
                    if len(tally.stops) >= stops:
                        return
                    number = next(numbers)
                randomness = random.Random(f"{seed}/{launcher}/{number}")
                settings, processes = plans[number % len(plans)]
                folder = tmp_path / f"{launcher} {number}"
                run = TinyRun(settings, False, structures, folder / "cache", folder / "run")
                reference = references.get(
                    replace(run, cache_dir=tmp_path / "cache", save_dir=tmp_path / "x"), processes
                )
                last_step = max(reference.course.rates)
                steps_per_epoch = last_step // SIGNAL_SETTINGS[settings]["epochs"]
                phases = ["caching", *randomness.choices(PHASES[1:], k=STOPS_PER_RUN - 1)]
                for turn, phase in enumerate(phases):
                    begin = partial(start, run, processes, folder / str(turn))
                    stop = stop_by_signal(begin, run, steps_per_epoch, phase, randomness)
                    if stop is None:
                        break
                    with lock:
                        tally.add(stop)
                last = server.launch(run.command_line(processes), processes, trace=True)
                statuses = last.wait()
                with lock:
                    if any(statuses):
                        tally.failures.append(f"the last launch ended with {statuses}:\n{last.output()}")
                    tally.failures += reference.course.deviations(traced_steps(last.trace), bitwise=True)
                    tally.end(run, reference)

        with ThreadPoolExecutor(workers) as pool:
            for worker in [pool.submit(work) for _ in range(workers)]:
                worker.result()
        return tally

    return repeat


@pytest.mark.proof
def test_stopped_by_signals_from_the_fork_server(stop_runs, figures, proof_size):
    plans = [(settings, processes) for settings in SIGNAL_SETTINGS for processes in (1, 2)]
    wanted = proof_size("PROOF_SIGNALS", 100)
    tally = stop_runs("fork server", wanted, proof_size("PROOF_SEED", 0), proof_size("PROOF_WORKERS", 2), plans)
    figures(tally.line())
    assert {stop.phase for stop in tally.stops} == set(PHASES)
    assert not tally.failures, "\n".join(tally.failures)


@pytest.mark.proof
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_stopped_by_signals_under_each_launcher(stop_runs, figures, proof_size, launcher):
    plans = [(settings, LAUNCHERS[launcher][1]) for settings in SIGNAL_SETTINGS]
    wanted = proof_size("PROOF_SIGNALS_PER_LAUNCHER", 20)
    tally = stop_runs(launcher, wanted, proof_size("PROOF_SEED", 0), proof_size("PROOF_WORKERS", 2), plans)
    figures(tally.line())
    assert not tally.failures, "\n".join(tally.failures)
