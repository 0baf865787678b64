"""Rows of the cache -> the flat tensors that the model reads, cropped where a structure is longer than the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..randomness import numpy_generator
from .batching import SampleKey


class RowSource(Protocol):
    """What a `StructureCache` offers here."""

    def __getitem__(self, index: int) -> Mapping[str, Any]: ...


class FlatBatch(TypedDict):
    """`N` residues of `B` structures end to end; no padding.

    backbone (N, 4, 3) float32, angstrom · backbone_mask (N,) bool · residue_type (N,) int64, 20 unknown ·
    structure_index (N,) int64 · chain_index (N,) int64 · position (N,) int64 · row (B,) int64, row in the cache
    """

    backbone: Tensor
    backbone_mask: Tensor
    residue_type: Tensor
    structure_index: Tensor
    chain_index: Tensor
    position: Tensor
    row: Tensor


def model_inputs(batch: FlatBatch) -> dict[str, Tensor]:
    """What the encoder reads of a batch; residue types are not among it."""
    return {
        "backbone": batch["backbone"],
        "backbone_mask": batch["backbone_mask"],
        "structure_index": batch["structure_index"],
        "chain_index": batch["chain_index"],
        "position": batch["position"],
    }


class StructureDataset(Dataset[dict[str, Any]]):
    """Selected rows of a cache, as backbone arrays.

    Parameters
    ----------
    cache : rows by number
    rows : (rows,) rows of the cache that belong to this split; a `SampleKey` counts within them
    max_residues : longer structures give a window of this many residues, a function of (seed, epoch, row); None for
        whole structures
    seed : of the run
    """

    def __init__(self, cache: RowSource, rows: np.ndarray, max_residues: int | None, seed: int):
        self.cache = cache
        self.rows = rows
        self.max_residues = max_residues
        self.seed = seed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, keys: Sequence[SampleKey]) -> list[dict[str, Any]]:
        return [self[key] for key in keys]

    def __getitem__(self, key: SampleKey) -> dict[str, Any]:
        row = int(self.rows[key.row])
        columns = self.cache[row]
        length = len(columns["residue_type"])
        window = slice(0, length)
        if self.max_residues is not None and length > self.max_residues:
            generator = numpy_generator(self.seed, "window", key.epoch, row)
            start = int(generator.integers(length - self.max_residues + 1))
            window = slice(start, start + self.max_residues)
        sample = {
            name: columns[name][window] for name in ("backbone", "atom_mask", "residue_type", "chain_index", "position")
        }
        sample["row"] = row
        return sample


def collate(samples: Sequence[Mapping[str, Any]]) -> FlatBatch:
    """Concatenate samples of `StructureDataset`.

    Without samples it gives one residue of no structure's worth: no backbone, unknown type, nothing to score, so that a
    process without work in a step still runs the same code.
    """
    if not samples:
        return FlatBatch(
            backbone=torch.zeros(1, 4, 3),
            backbone_mask=torch.zeros(1, dtype=torch.bool),
            residue_type=torch.full((1,), 20),
            structure_index=torch.zeros(1, dtype=torch.int64),
            chain_index=torch.zeros(1, dtype=torch.int64),
            position=torch.zeros(1, dtype=torch.int64),
            row=torch.full((1,), -1),
        )
    lengths = [len(sample["residue_type"]) for sample in samples]

    def joined(name: str, dtype: type) -> Tensor:
        return torch.from_numpy(np.concatenate([sample[name] for sample in samples]).astype(dtype, copy=False))

    mask = np.concatenate([sample["atom_mask"][:, :4].all(axis=1) for sample in samples])
    return FlatBatch(
        backbone=joined("backbone", np.float32),
        backbone_mask=torch.from_numpy(mask),
        residue_type=joined("residue_type", np.int64),
        structure_index=torch.repeat_interleave(torch.arange(len(samples)), torch.tensor(lengths)),
        chain_index=joined("chain_index", np.int64),
        position=joined("position", np.int64),
        row=torch.tensor([sample["row"] for sample in samples]),
    )
