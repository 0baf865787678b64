"""How long a resume takes from its start to the end of its first optimizer step, at both ends of an epoch.

    python tests/benchmarks/resume_start.py --pdb_path FOLDER --cache_dir C

Imports are not counted, nor is building the cache. Two checkpoints of one run are written, after 1 % and after 99 % of
the first epoch's steps; the steps between are not trained but skipped by moving the cursor, on which alone data order
and randomness depend. Printed are both times and their ratio: 1 means that nothing is replayed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from accelerate.state import AcceleratorState, GradientState

from protein_model.training.arguments import GivenOptions
from protein_model.training.trainer import Trainer


class FirstStep(Exception):
    """The first step is done."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the start of a resumed run.")
    parser.add_argument("--pdb_path", required=True, help="folder of structures, with train/ and validation/")
    parser.add_argument("--cache_dir", required=True, help="where its cache is")
    parser.add_argument("--batch_residues", type=int, default=2000, help="per optimizer step [2000]")
    options = parser.parse_args()
    given = {
        "pdb_path": options.pdb_path,
        "cache_dir": options.cache_dir,
        "use_predefined_split": True,
        "use_discrete_diffusion": True,
        "batch_residues": options.batch_residues,
        "hidden_dim": 64,
        "num_neighbors": 24,
        "epochs": 2,
    }
    with tempfile.TemporaryDirectory() as folder:
        trainer = begin({**given, "save_dir": folder})
        steps = trainer.progress.steps_per_epoch
        shares = (0.01, 0.99)
        for share in shares:
            trainer.progress.step = int(share * steps)
            trainer._save([f"checkpoint_step_{trainer.progress.step}"])
        trainer.writer.wait()
        trainer.store.unlock()
        times = []
        for share in shares:
            started = time.perf_counter()
            resumed = begin(
                {"save_dir": f"{folder}/resumed", "resume_from": f"{folder}/checkpoint_step_{int(share * steps)}"}
            )
            update = resumed.steps.update

            def first_step(*arguments: Any, update=update) -> None:
                update(*arguments)
                raise FirstStep

            resumed.steps.update = first_step
            try:
                resumed.fit()
            except FirstStep:
                times.append(time.perf_counter() - started)
        print(f"{len(trainer.data.split.train):,} training chains, {steps:,} steps an epoch")
        for share, seconds in zip(shares, times, strict=True):
            print(f"resume at {100 * share:2.0f} % of an epoch: {seconds:.2f} s to the end of the first step")
        print(f"ratio {times[1] / times[0]:.2f}")


def begin(values: dict) -> Trainer:
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    return Trainer(GivenOptions(values))


if __name__ == "__main__":
    main()
