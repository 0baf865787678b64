"""Started on 4 processes, gone on with on 2, on 1 and on 4 again, a run is the one it would have been on any of them.

    python -m pytest -m proof tests/proofs/test_elastic_proof.py

Every kind of run is moved from 4 processes to 2, to 1 and back to 4, by SIGTERM or SIGKILL at random steps, and
compared with runs that were left alone on 1, 2 and 4 processes: of every step the samples, their noise, their
corruption and the learning rate bit by bit, and the results up to rounding; with `--deterministic`, the results bit by
bit as well, on all numbers of processes. A second test measures what `--deterministic` costs.

Environment variables: PROOF_MOVES (rounds over all kinds of runs, 2), PROOF_SEED (0), PROOF_REPETITIONS (timings, 3).
"""

import json
import random
import statistics

import pytest

from protein_model.training.arguments import EXAMPLES
from tests.proofs.moving import Comparison, Place, moved
from tests.proofs.references import References
from tests.proofs.runs import SETTINGS, TinyRun, outcome, traced_steps

COURSE = [Place(4), Place(2), Place(1), Place(4)]


@pytest.mark.proof
@pytest.mark.parametrize("deterministic", [False, True], ids=["default", "deterministic"])
def test_four_two_one_four(server, structures, cache_dir, tmp_path, figures, proof_size, deterministic):
    references = References(server)
    rounds, steps, compared = proof_size("PROOF_MOVES", 2), 0, Comparison()
    for number in range(rounds):
        for settings in SETTINGS:
            randomness = random.Random(f"{proof_size('PROOF_SEED', 0)}/{number}/{settings}")
            run = TinyRun(settings, deterministic, structures, cache_dir, tmp_path / f"{settings} {number}")
            left_alone = [references.get(run, processes) for processes in (1, 2, 4)]
            launches = moved(server, run, COURSE, randomness)
            found = outcome(run.save_dir)
            traced = [list(traced_steps(launch.trace)) for launch in launches]
            steps += len({step.step for launch in traced for step in launch})
            for reference, processes in zip(left_alone, (1, 2, 4), strict=True):
                against = f"{settings}, round {number}, against {processes} processes"
                compared.add(found, traced, reference, against, bitwise=deterministic, same_gradients=deterministic)
    figures(
        f"elastic proof, {'--deterministic' if deterministic else 'default'}: {rounds * len(SETTINGS)} runs moved "
        f"{' -> '.join(map(str, COURSE))} processes, {steps} steps compared with runs on 1, 2 and 4: values that are "
        f"not bitwise equal {compared.places}, largest difference {compared.largest:.1e}, of recoveries "
        f"{compared.recovery:.1e}; "
        f"failures {len(compared.failures)}"
    )
    assert not compared.failures, "\n".join(compared.failures[:50])


@pytest.mark.proof
def test_cost_of_determinism(server, tmp_path, figures, proof_size):
    """Seconds of an epoch of a model of usual shape, with and without; the first epoch of a launch is left out."""
    options = {
        **{"pdb_path": EXAMPLES, "cache_dir": tmp_path / "cache", "use_discrete_diffusion": True, "epochs": 4},
        **{"hidden_dim": 64, "num_neighbors": 32, "batch_residues": 500, "num_example_designs": 0},
    }
    ratios = []
    for processes in (1, 2):
        seconds: dict[bool, list[float]] = {False: [], True: []}
        for repetition in range(proof_size("PROOF_REPETITIONS", 3)):
            for deterministic in (False, True):
                save_dir = tmp_path / f"{processes} {repetition} {deterministic}"
                arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
                arguments += ["--save_dir", str(save_dir), "--deterministic", str(deterministic)]
                launch = server.launch(arguments, processes)
                assert not any(launch.wait(600)), launch.output()
                epochs = json.loads((save_dir / "history.json").read_text())["epochs"]
                seconds[deterministic] += [epoch["seconds"] for epoch in epochs[1:]]
        ratios.append((processes, statistics.median(seconds[True]) / statistics.median(seconds[False])))
    shown = ", ".join(f"{ratio:.2f} on {processes} process{'es'[: 2 * (processes > 1)]}" for processes, ratio in ratios)
    figures(f"cost of --deterministic: time of an epoch times {shown}")
    assert all(ratio < 3 for _, ratio in ratios)
