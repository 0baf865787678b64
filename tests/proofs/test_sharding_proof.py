"""A run that is sharded (FSDP2) is the one that it would be without, wherever it is stopped and goes on.

    python -m pytest -m proof tests/proofs/test_sharding_proof.py

Sharded runs on 2 processes are stopped again and again by SIGTERM or SIGKILL at random steps, and end equal to sharded
runs that were left alone, bit by bit. Runs that change between sharded and not, and their number of processes as well,
are compared with runs on 1 and 2 processes that were never sharded: of every step the samples, their noise, their
corruption and the learning rate bit by bit, and the results up to rounding. A last test shows what a process holds, and
that all go back when one of them has a gradient that is not finite.

Environment variables: PROOF_MOVES (rounds over all kinds of runs, 1), PROOF_SEED (0).
"""

import json
import os
import random
import subprocess
import sys

import pytest

from tests.proofs.launches import ROOT, SHARDED_ENVIRONMENT, TRAINING_ENVIRONMENT
from tests.proofs.moving import Comparison, Place, moved
from tests.proofs.references import References
from tests.proofs.runs import SETTINGS, TinyRun, outcome, traced_steps

SAME = [Place(2, sharded=True)] * 4
CHANGING = [Place(2, sharded=True), Place(1), Place(4, sharded=True), Place(2), Place(2, sharded=True)]

# Trains under torchrun; one process has a gradient that is not a number, in its own slice. Writes what each process
# holds of weights, average and optimizer state, as a share of the whole, and which steps it left out.
POISONED = """
import json, math, sys
from protein_model.training.arguments import parse_options
from protein_model.training.slices import own_slice
from protein_model.training.trainer import Trainer
place = sys.argv.pop(1)
trainer = Trainer(parse_options())
rank, accumulate, poisoned = trainer.accelerator.process_index, trainer.steps.accumulate, []
def poison(batch, step, micro_step):
    accumulate(batch, step, micro_step)
    if (step, micro_step, rank, poisoned) == (3, 1, 1, []):
        poisoned.append(step)
        own_slice(trainer.steps.parameters[0].grad)[0] = math.nan
trainer.steps.accumulate = poison
trainer.fit()
held = [*trainer.network.state_dict().values(), *trainer.average.state_dict()["average"].values()]
held += [value for entry in trainer.optimizer.state_dict()["state"].values() for value in entry.values()]
whole = 4 * sum(parameter.numel() for parameter in trainer.network.parameters())
share = sum(own_slice(tensor).numel() for tensor in held) / whole
open(f"{place}.{rank}", "w").write(json.dumps([share, trainer.progress.skipped_steps]))
"""


@pytest.mark.proof
@pytest.mark.parametrize("course", [SAME, CHANGING], ids=["sharded", "sharded and not"])
def test_wherever_it_goes_on(server, structures, cache_dir, tmp_path, figures, proof_size, course):
    bitwise = course is SAME
    references = References(server)
    rounds, steps, compared = proof_size("PROOF_MOVES", 1), 0, Comparison()
    for number in range(rounds):
        for settings in SETTINGS:
            randomness = random.Random(f"{proof_size('PROOF_SEED', 0)}/{number}/{settings}")
            run = TinyRun(settings, False, structures, cache_dir, tmp_path / f"{settings} {number}")
            left_alone = [SAME[0]] if bitwise else [Place(1), Place(2)]
            launches = moved(server, run, course, randomness)
            found = outcome(run.save_dir)
            traced = [list(traced_steps(launch.trace)) for launch in launches]
            steps += len({step.step for launch in traced for step in launch})
            for place in left_alone:
                reference = references.get(run, place.processes, place.sharded)
                against = f"{settings}, round {number}, against {place}"
                compared.add(found, traced, reference, against, bitwise=bitwise, same_gradients=False)
    figures(
        f"sharding proof: {rounds * len(SETTINGS)} runs, {' -> '.join(map(str, course))} processes, {steps} steps "
        f"compared with runs on {' and '.join(map(str, left_alone))}: largest difference "
        f"{compared.largest:.1e}, of recoveries {compared.recovery:.1e}; failures {len(compared.failures)}"
    )
    assert not compared.failures, "\n".join(compared.failures[:50])


@pytest.mark.proof
def test_what_one_process_sees_alone(structures, cache_dir, tmp_path, figures):
    """Each holds its share; and a gradient that is not finite in the slice of one makes all go back together."""
    (tmp_path / "poisoned.py").write_text(POISONED)
    run = TinyRun("two steps", False, structures, cache_dir, tmp_path / "run")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv-backend", "c10d"),
            *("--rdzv-endpoint", "localhost:0", str(tmp_path / "poisoned.py"), str(tmp_path / "process")),
            *(*run.command_line(2), "--on_divergence", "rollback"),
        ],
        env={**os.environ, **TRAINING_ENVIRONMENT, **SHARDED_ENVIRONMENT, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "Back to " in done.stdout and "1 optimizer step to do again" in done.stdout
    shares, skipped = zip(*(json.loads((tmp_path / f"process.{rank}").read_text()) for rank in range(2)), strict=True)
    assert skipped == ([3], [3])
    figures(f"of weights, average and optimizer state, process 0 holds {shares[0]:.1%} and process 1 {shares[1]:.1%}")
    assert all(share < 0.55 for share in shares)  # a tensor with an odd number of rows cannot be halved
