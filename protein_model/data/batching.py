"""Which structures are trained on together, and in which order: a pure function of lengths, settings, seed and epoch.

An optimizer step is a global batch of `shards` micro-batches, and an epoch is `steps_per_epoch` such steps, the same
number in every epoch, so the optimizer step alone says where a run is. Each of W processes takes shards / W
micro-batches of every step. Turning rows into tensors is left to `collate`.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from ..errors import UserError
from ..randomness import numpy_generator
from ..wording import counted
from .parts import rows_of_parts

PACKING_TRIALS = 3  # orders tried at start-up to find how many steps an epoch needs


class BatchingError(UserError, ValueError):
    """The batch settings and the data do not fit together."""


@dataclass(frozen=True)
class BatchSettings:
    """How micro-batches are cut.

    Attributes
    ----------
    batch_size : most structures per micro-batch, None for no limit
    batch_residues : most residues per micro-batch, None for no limit; longer structures are cropped to it
    shards : micro-batches per optimizer step over all processes (V); fixed at the first launch of a run
    seed : of the whole run
    """

    batch_size: int | None
    batch_residues: int | None
    shards: int
    seed: int

    def __post_init__(self) -> None:
        if self.batch_size is None and self.batch_residues is None:
            raise BatchingError("give --batch_size, --batch_residues or both")
        for option, value in (
            ("--batch_size", self.batch_size),
            ("--batch_residues", self.batch_residues),
            ("the number of shards", self.shards),
        ):
            if value is not None and value < 1:
                raise BatchingError(f"{option} must be at least 1, but is {value}")


class EpochPlan:
    """The micro-batches of every epoch of one data set.

    Every structure is in exactly one micro-batch of an epoch. Micro-batches hold nearly the same number of residues, so
    processes that work side by side finish together. A micro-batch may be empty only where there are fewer structures
    than micro-batches.

    Parameters
    ----------
    lengths : (rows,) residues
    parts : (rows,) from 0 to shards - 1, see `parts.equal_parts`: micro-batch v of each step is made of structures of
        part v, so that who takes micro-batch v needs no other; None where any structure may be in any micro-batch
    """

    def __init__(self, lengths: np.ndarray, settings: BatchSettings, parts: np.ndarray | None = None):
        if len(lengths) == 0:
            raise BatchingError("there is no structure to make batches of")
        self.settings = settings
        limit = settings.batch_residues or int(lengths.max())
        self.lengths = np.minimum(lengths, limit).astype(np.int64)
        self._capacity = settings.batch_residues or int(self.lengths.sum())
        self._max_count = settings.batch_size or len(lengths)
        # Groups are packed by themselves, each into an equal share of the micro-batches of a step.
        self._groups = [np.arange(len(lengths))] if parts is None else rows_of_parts(parts, settings.shards)
        self.steps_per_epoch, self._fallback = self._size_epoch()

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """Rows of each micro-batch of an epoch, `steps_per_epoch * shards` arrays in global order."""
        generator = numpy_generator(self.settings.seed, "order", epoch)
        columns: list[list[np.ndarray]] = []
        for group, fallback in zip(self._groups, self._fallback, strict=True):
            bins = self._pack(generator, group, self._bins(self.steps_per_epoch)) or fallback
            order = generator.permutation(len(bins))
            columns.append([np.asarray(bins[index], np.int64) for index in order])
        return [rows for step in zip(*columns, strict=True) for rows in step]

    def _bins(self, steps: int) -> int:
        """Micro-batches of a group in so many steps."""
        return steps * self.settings.shards // len(self._groups)

    def _size_epoch(self) -> tuple[int, list[list[list[int]]]]:
        """The fewest steps for which trial orders can be packed, and one packing for the rare epoch that cannot."""
        needed = max(
            math.ceil(max(int(self.lengths[group].sum()) / self._capacity, len(group) / self._max_count))
            for group in self._groups
        )
        steps = math.ceil(needed / self._bins(1))
        while True:
            packed = [
                self._pack(numpy_generator(self.settings.seed, "trial", trial), group, self._bins(steps))
                for trial in range(PACKING_TRIALS)
                for group in self._groups
            ]
            fitting = [bins for bins in packed if bins is not None]
            if len(fitting) == len(packed):
                return steps, fitting[: len(self._groups)]
            steps += max(1, steps // 200)

    def _pack(self, generator: np.random.Generator, group: np.ndarray, count: int) -> list[list[int]] | None:
        """Deal the structures of a group into `count` bins, the emptiest first, or None where they do not fit.

        Lengths are dealt in tiers, each half as long as the one before, in random order within a tier: long structures
        while there is room for them, short ones to level the bins, and still any two may meet.
        """
        lengths = self.lengths[group]
        tiers = np.floor(np.log2(np.maximum(lengths, 1))).astype(np.int64)
        shuffled = generator.permutation(len(group))
        order = shuffled[np.argsort(-tiers[shuffled], kind="stable")]
        bins: list[list[int]] = [[] for _ in range(count)]
        heap = [(0, index) for index in range(count)]
        for row, length in zip(group[order].tolist(), lengths[order].tolist(), strict=True):
            if not heap or heap[0][0] + length > self._capacity:
                return None
            residues, index = heap[0]
            bins[index].append(row)
            if len(bins[index]) == self._max_count:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, (residues + length, index))
        return bins


@dataclass(frozen=True)
class SampleKey:
    """One structure in one epoch: what its cropping window depends on."""

    row: int
    epoch: int


class MicroBatchSampler:
    """Yields the micro-batches of one epoch in global order, from a given step on.

    It is handed to a `DataLoader` as `batch_sampler`. Accelerate deals its micro-batches out to the processes in turn.
    It has no `batch_size` attribute on purpose: with one, Accelerate takes micro-batches of another size for
    incomplete ones and leaves them out.
    """

    def __init__(self, plan: EpochPlan):
        self.plan = plan
        self._epoch = 0
        self._first_step = 0

    def seek(self, epoch: int, first_step: int = 0) -> None:
        """The next iteration begins at step `first_step` of `epoch`."""
        self._epoch, self._first_step = epoch, first_step

    def __len__(self) -> int:
        return (self.plan.steps_per_epoch - self._first_step) * self.plan.settings.shards

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for rows in self.plan.epoch(self._epoch)[self._first_step * self.plan.settings.shards :]:
            yield [SampleKey(row, self._epoch) for row in rows.tolist()]


def sequential_micro_batches(
    lengths: np.ndarray, batch_size: int | None, batch_residues: int, multiple_of: int
) -> list[list[SampleKey]]:
    """Micro-batches for evaluation: every structure once, longest first, always the same.

    Parameters
    ----------
    lengths : (rows,) residues
    batch_size, batch_residues : limits as in `BatchSettings`; a structure longer than the budget is alone, uncropped
    multiple_of : empty micro-batches are added until their number is a multiple, so that all processes get as many
    """
    batches: list[list[SampleKey]] = []
    residues = 0
    for row in np.argsort(-lengths, kind="stable").tolist():
        full = not batches or residues + int(lengths[row]) > batch_residues or len(batches[-1]) == batch_size
        if full:
            batches.append([])
            residues = 0
        batches[-1].append(SampleKey(row, 0))
        residues += int(lengths[row])
    while len(batches) % multiple_of:
        batches.append([])
    return batches


def sequential_by_part(
    lengths: np.ndarray, batch_size: int | None, batch_residues: int, parts: np.ndarray, count: int
) -> list[list[SampleKey]]:
    """As `sequential_micro_batches`, but number v of every `count` micro-batches has structures of part v alone.

    Parameters
    ----------
    parts : (rows,) from 0 to count - 1
    count : a multiple of the number of processes
    """
    columns: list[list[list[SampleKey]]] = []
    for rows in rows_of_parts(parts, count):
        batches = sequential_micro_batches(lengths[rows], batch_size, batch_residues, 1)
        columns.append([[SampleKey(int(rows[key.row]), 0) for key in keys] for keys in batches])
    return [keys for step in zip_longest(*columns, fillvalue=[]) for keys in step]


def shards_per_process(shards: int, num_processes: int) -> int:
    """Micro-batches that each process takes of a step.

    Raises
    ------
    BatchingError : the shards cannot be divided evenly; the message names the numbers of processes that can
    """
    if shards % num_processes:
        possible = [str(count) for count in range(1, shards + 1) if shards % count == 0]
        raise BatchingError(
            f"a step of this run is cut into {counted(shards, 'shard')}, which {num_processes} processes cannot share "
            f"evenly; launch it on {_either(possible)} {'process' if shards == 1 else 'processes'}"
        )
    return shards // num_processes


def _either(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
