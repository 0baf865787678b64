"""How long training waits for a checkpoint: background saving against a plain `Accelerator.save_state`.

    python tests/benchmarks/checkpoint_stall.py [--hidden_dim 128] [--layers 3] [--saves 5] [--every 10]

Trains the embedded examples, saves every few steps, in turn by the project's writer and by a plain, blocking
`save_state` followed by the flush to disk that both need to be safe. What is counted is the time in which the training
loop stands still; the last line is the ratio.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from protein_model.model.modeling import parameter_count
from protein_model.processor import keep_memory
from protein_model.training.arguments import GivenOptions
from protein_model.training.checkpoints import flush_file
from protein_model.training.trainer import Trainer


def main() -> None:
    keep_memory()
    parser = argparse.ArgumentParser(description="Time the stall of a checkpoint.")
    parser.add_argument("--hidden_dim", type=int, default=128, help="width of the model [128]")
    parser.add_argument("--layers", type=int, default=3, help="encoder and decoder layers each [3]")
    parser.add_argument("--saves", type=int, default=5, help="saves of each kind [5]")
    parser.add_argument("--every", type=int, default=10, help="optimizer steps between saves [10]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            GivenOptions(
                {
                    "pdb_path": str(Path(__file__).resolve().parents[2] / "protein_model" / "examples"),
                    "cache_dir": f"{folder}/cache",
                    "save_dir": f"{folder}/run",
                    "use_discrete_diffusion": True,
                    "hidden_dim": options.hidden_dim,
                    "num_encoder_layers": options.layers,
                    "num_decoder_layers": options.layers,
                    "num_neighbors": 30,
                    "batch_residues": 1500,
                    "epochs": 1_000_000,
                    "num_example_designs": 0,
                }
            )
        )
        measure(trainer, Path(folder), options.saves, options.every)


def measure(trainer: Trainer, folder: Path, saves: int, every: int) -> None:
    steps: list[float] = []
    stalls: dict[str, list[float]] = {"background": [], "plain save_state": []}

    def synchronised() -> float:
        if trainer.accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def endless():
        while True:
            trainer.data.sampler.seek(0)
            yield from trainer.train_loader

    trainer.model.train()
    batches = endless()
    kinds = [kind for _ in range(saves + 1) for kind in stalls]  # the first of each fills buffers, and is not counted
    for number, kind in enumerate(kinds):
        for _ in range(every):
            started = synchronised()
            trainer.steps.accumulate(next(batches), trainer.progress.step, 0)
            trainer.steps.update(1e-3, False)
            trainer.progress.step += 1
            steps.append(synchronised() - started)
        started = synchronised()
        if kind == "background":
            trainer._save([f"checkpoint_step_{trainer.progress.step}"])
        else:
            plain = folder / "plain"
            trainer.accelerator.save_state(str(plain))
            for path in plain.iterdir():
                flush_file(path)
        stall = synchronised() - started
        if number >= len(stalls):
            stalls[kind].append(stall)
        if kind != "background":
            shutil.rmtree(plain)
    trainer.writer.wait()
    step = sorted(steps)[len(steps) // 2]
    size = sum(path.stat().st_size for path in trainer.store.checkpoints()[0].rglob("*") if path.is_file())
    print(
        f"{parameter_count(trainer.network):,} parameters, {size / 1e6:.1f} MB a checkpoint, on "
        f"{trainer.accelerator.device.type}; a step takes {1e3 * step:.1f} ms (median)"
    )
    medians = {kind: sorted(values)[len(values) // 2] for kind, values in stalls.items()}
    for kind, stall in medians.items():
        print(f"{kind:18s} {1e3 * stall:8.2f} ms a save, {100 * stall / step:6.1f} % of a step (median of {saves})")
    print(f"ratio              {medians['plain save_state'] / medians['background']:8.1f}")


if __name__ == "__main__":
    main()
