"""From the cache to a batch: flat batches of a residue budget against padded batches of the same rows.

    python tests/benchmarks/loader.py [--pdb_path FOLDER_OR_CACHE] [--batch_residues 6000] [--workers 0 1]

Both loaders read the same rows of the same memory-mapped cache, a whole epoch of them, in a process of their own each
(`--workers`). The padded one sorts chains by length first, as ProteinMPNN's does, fills batches up to as many places
and pads to the longest. Residues per second count real residues, not places.

Where the time goes (cProfile): half in views of the memory-mapped rows, a tenth in the mask of complete backbones, a
third in putting arrays end to end. The padded loader reads in order of length, every time, where this one reads in
random order; that and the smaller number of calls make it the faster one, and neither holds up a GPU.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from protein_model.data.batching import BatchSettings, EpochPlan, MicroBatchSampler, SampleKey
from protein_model.data.cache import StructureCache, build_cache
from protein_model.data.collate import StructureDataset, collate

EXAMPLES = Path(__file__).resolve().parents[2] / "protein_model" / "examples"
COLUMNS = {"backbone": np.float32, "residue_type": np.int64, "chain_index": np.int64, "position": np.int64}


def padded_collate(samples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """(B, longest, ...) arrays and their mask."""
    longest = max(len(sample["residue_type"]) for sample in samples)
    batch: dict[str, Tensor] = {}
    for name, dtype in COLUMNS.items():
        array = np.zeros((len(samples), longest, *samples[0][name].shape[1:]), dtype)
        for row, sample in enumerate(samples):
            array[row, : len(sample[name])] = sample[name]
        batch[name] = torch.from_numpy(array)
    mask = np.zeros((len(samples), longest), bool)
    for row, sample in enumerate(samples):
        mask[row, : len(sample["atom_mask"])] = sample["atom_mask"][:, :4].all(axis=1)
    batch["mask"] = torch.from_numpy(mask)
    return batch


class PaddedBatches:
    """Rows sorted by length, in batches of at most so many places."""

    def __init__(self, lengths: np.ndarray, places: int):
        self.batches: list[list[int]] = []
        batch: list[int] = []
        for row in np.argsort(lengths, kind="stable").tolist():
            if batch and (len(batch) + 1) * lengths[row] > places:
                self.batches.append(batch)
                batch = []
            batch.append(row)
        self.batches.append(batch)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for rows in self.batches:
            yield [SampleKey(row, 0) for row in rows]


def loaders(cache: StructureCache, batch_residues: int, workers: int) -> dict[str, DataLoader]:
    rows = np.arange(len(cache))
    dataset = StructureDataset(cache, rows, batch_residues, seed=0)
    lengths = np.minimum(cache.lengths, batch_residues)
    flat = MicroBatchSampler(EpochPlan(cache.lengths, BatchSettings(None, batch_residues, 1, 0)))
    kinds: dict[str, tuple[Any, Any]] = {
        "padded": (PaddedBatches(lengths, batch_residues), padded_collate),
        "this project, flat": (flat, collate),
    }
    return {
        name: DataLoader(dataset, batch_sampler=sampler, collate_fn=function, num_workers=workers)
        for name, (sampler, function) in kinds.items()
    }


def main() -> None:
    """Print residues per second and padding of both loaders."""
    parser = argparse.ArgumentParser(description="Time reading batches from the cache.")
    parser.add_argument("--pdb_path", type=Path, default=EXAMPLES, help="structures or finished cache [the examples]")
    parser.add_argument("--batch_residues", type=int, default=6000, help="[6000]")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1], help="processes that read [0 1]")
    parser.add_argument("--epochs", type=int, default=3, help="epochs to read; the best one counts [3]")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        cache = build_cache(options.pdb_path, Path(folder))
        print(f"{len(cache):,} structures, {int(cache.lengths.sum()):,} residues")
        for workers in options.workers:
            speeds: dict[str, float] = {}
            for name, loader in loaders(cache, options.batch_residues, workers).items():
                times = []
                for _ in range(options.epochs):
                    start = time.perf_counter()
                    real = places = 0
                    for batch in loader:
                        mask = batch["mask"] if "mask" in batch else batch["backbone_mask"]
                        real, places = real + int(mask.sum()), places + mask.numel()
                    times.append(time.perf_counter() - start)
                speeds[name] = real / min(times)
                ratio = speeds[name] / speeds["padded"]
                print(
                    f"{workers} workers  {name:20} {speeds[name]:12,.0f} residues/s   ratio {ratio:5.2f}   "
                    f"{1 - real / places:6.1%} of the places without a residue that can be used"
                )


if __name__ == "__main__":
    main()
