"""Whatever happens to a file of a checkpoint is noticed, named and stepped over.

    python -m pytest -m proof tests/proofs/test_corruption_proof.py

Checkpoints of a real run are damaged at random: flipped bits, truncated, emptied, deleted, lengthened and zeroed files,
files swapped between two checkpoints or within one, files added; every file of every checkpoint, the manifest and the
best model among them, and up to all checkpoints at a time. Each time `verify` must refuse every damaged one and no
other, and `--resume_from` must come to the newest good one and name every newer one that it steps over.

Environment variables: PROOF_CORRUPTIONS (10000), PROOF_SEED (0).
"""

import random
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest

from protein_model.training.checkpoints import CheckpointError, locate, verify
from tests.proofs.corrupting import KINDS, Checkpoints
from tests.proofs.runs import TinyRun


@dataclass
class Tally:
    """Figures over all corruptions."""

    corruptions: int = 0
    none_left: int = 0
    kinds: Counter = field(default_factory=Counter)
    files: Counter = field(default_factory=Counter)
    undetected: list[str] = field(default_factory=list)
    false_alarms: list[str] = field(default_factory=list)
    wrong_fallback: list[str] = field(default_factory=list)
    unnamed: list[str] = field(default_factory=list)

    @property
    def failures(self) -> list[str]:
        return [*self.undetected, *self.false_alarms, *self.wrong_fallback, *self.unnamed]

    def line(self, seconds: float) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.kinds.items()))
        return (
            f"corruption proof: {self.corruptions} corruptions ({kinds}) in {seconds:.0f} s; undetected "
            f"{len(self.undetected)}, false alarms {len(self.false_alarms)}, wrong fallback "
            f"{len(self.wrong_fallback)}, stepped over without a word {len(self.unnamed)}; no good checkpoint left "
            f"{self.none_left} times"
        )


@pytest.fixture(scope="module")
def checkpoints(server, structures, cache_dir, tmp_path_factory) -> Checkpoints:
    """Of a run of the real trainer: two in the middle of an epoch, one for each epoch, the best model."""
    run = TinyRun("dropout and noise", False, structures, cache_dir, tmp_path_factory.mktemp("damaged") / "run")
    launch = server.launch(run.command_line(1))
    assert launch.wait() == [0], launch.output()
    found = Checkpoints(run.save_dir)
    assert len(found.steps) == 5, found.steps
    return found


def corrupt(checkpoints: Checkpoints, corruptions: int, seed: int) -> Tally:
    """Damage, look, repair, again and again."""
    tally = Tally()
    trial = 0
    while tally.corruptions < corruptions:
        trial += 1
        randomness = random.Random(f"{seed}/{trial}")
        damaged: set[str] = set()
        done: list[str] = []
        # Mostly one checkpoint, sometimes as many as there are.
        number = 1 if randomness.random() < 0.7 else randomness.randint(2, len(checkpoints.steps))
        for name in randomness.sample(sorted(checkpoints.steps), number):
            kind = randomness.choice(KINDS)
            if name not in damaged and (now := checkpoints.damage(name, kind, randomness)):
                damaged |= now
                done.append(f"{kind}: {', '.join(sorted(now))}")
                tally.kinds[kind] += 1
        if damaged:
            tally.corruptions += len(done)
            judge(checkpoints, damaged, f"trial {trial} ({'; '.join(done)})", tally, randomness)
        checkpoints.repair()
    return tally


def judge(checkpoints: Checkpoints, damaged: set[str], what: str, tally: Tally, randomness: random.Random) -> None:
    """What `verify` and `--resume_from` make of the damage."""
    for name in checkpoints.steps:
        try:
            verify(checkpoints.save_dir / name)
            noticed = False
        except CheckpointError as error:
            noticed = True
            if name in damaged and name not in str(error):
                tally.unnamed.append(f"{what}: {error}")
        if noticed != (name in damaged):
            (tally.false_alarms if noticed else tally.undetected).append(f"{what}: {name}")
    good = {name: step for name, step in checkpoints.steps.items() if name not in damaged}
    newest = max(good.values(), default=None)
    tally.none_left += newest is None
    asked = randomness.choice(("latest", *sorted(damaged)))
    try:
        point = locate(asked, checkpoints.save_dir)
    except CheckpointError as error:
        if newest is not None:
            tally.wrong_fallback.append(f"{what}: {asked} gave {error}")
        return
    if point is None or point.folder.name not in good or point.manifest.step != newest:
        tally.wrong_fallback.append(f"{what}: {asked} gave {point and point.folder.name}")
        return
    told = " ".join(point.problems)
    for name in damaged:
        if checkpoints.steps[name] > point.manifest.step and f"{name}/" not in told and f"{name}:" not in told:
            tally.unnamed.append(f"{what}: {asked} gave {point.folder.name} and did not speak of {name}")


def test_a_few_hundred_corruptions(checkpoints):
    """The proof in small, for every day."""
    tally = corrupt(checkpoints, 200, seed=0)
    assert set(tally.kinds) == set(KINDS)
    assert not tally.failures, "\n".join(tally.failures)


@pytest.mark.proof
def test_thousands_of_corruptions(checkpoints, figures, proof_size):
    started = time.monotonic()
    tally = corrupt(checkpoints, proof_size("PROOF_CORRUPTIONS", 10_000), proof_size("PROOF_SEED", 0))
    figures(tally.line(time.monotonic() - started))
    assert not tally.failures, f"{len(tally.failures)} failures\n" + "\n".join(tally.failures[:50])
