"""Options -> data and model: the cache, its split, the epoch plan, the loaders, the network and its optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from ..data.addresses import data_path
from ..data.batching import (
    BatchSettings,
    EpochPlan,
    MicroBatchSampler,
    SampleKey,
    sequential_by_part,
    sequential_micro_batches,
)
from ..data.cache import CacheOptions, StructureCache, build_cache
from ..data.collate import StructureDataset, collate
from ..data.parts import equal_parts, parts_of_neighbours
from ..data.progress import Progress
from ..data.splits import Split, cluster_split, predefined_split, refuse_unscorable
from ..model.configuration import ProteinModelConfig
from .arguments import EXAMPLES, Settings
from .signals import listen_to_trainer
from .substitution import blosum62_transition_matrix

DEFAULT_VALIDATION_RESIDUES = 6000


@dataclass
class TrainingData:
    """What the trainer reads.

    Attributes
    ----------
    cache : all structures
    split : rows of the cache for training and validation
    plan, sampler : order of the training micro-batches
    train_loader, validation_loader : not yet prepared by the Accelerator
    """

    cache: StructureCache
    split: Split
    plan: EpochPlan
    sampler: MicroBatchSampler
    train_loader: DataLoader
    validation_loader: DataLoader


def prepare_data(
    settings: Settings,
    shards: int,
    process_index: int,
    num_processes: int,
    say: Callable[[str], None] | None,
    should_stop: Callable[[], bool],
) -> TrainingData:
    """Build or open the cache, split it, plan the epochs, and have here what this process reads of it.

    Parameters
    ----------
    shards : micro-batches per optimizer step over all processes
    process_index, num_processes : of those that share them
    say : prints a line, and bars are shown while the cache is built and sequences are grouped; None on processes that
        are silent
    should_stop : polled while the cache is built and sequences are grouped

    Raises
    ------
    CacheInterrupted : `should_stop` returned True
    """
    source = data_path(settings.pdb_path) if settings.pdb_path is not None else EXAMPLES
    options = CacheOptions(unit=settings.unit, min_length=settings.min_length)
    cache = build_cache(source, Path(settings.cache_dir), options, should_stop=should_stop, progress=say is not None)
    split = split_data(settings, cache, source, say is not None, should_stop)
    batch_settings = BatchSettings(settings.batch_size, settings.batch_residues, shards, settings.seed)
    lengths, validation_lengths = cache.lengths[split.train], cache.lengths[split.validation]
    validation_residues = settings.batch_residues or DEFAULT_VALIDATION_RESIDUES
    rows: np.ndarray | None = None
    if settings.shuffle_within_parts:
        places, validation_places = cache.stored_places[split.train], cache.stored_places[split.validation]
        parts = equal_parts(places, np.minimum(lengths, settings.batch_residues or lengths.max()), shards)
        validation_parts = parts_of_neighbours(validation_places, places, parts)
        plan = EpochPlan(lengths, batch_settings, parts)
        validation_batches = sequential_by_part(
            validation_lengths, settings.batch_size, validation_residues, validation_parts, shards
        )
        # Accelerate deals micro-batches out in turn: those of part v go to process v modulo the number of processes.
        own, own_validation = (each % num_processes == process_index for each in (parts, validation_parts))
        rows = np.concatenate([split.train[own], split.validation[own_validation]])
    else:
        plan = EpochPlan(lengths, batch_settings)
        validation_batches = sequential_micro_batches(
            validation_lengths, settings.batch_size, validation_residues, multiple_of=num_processes
        )
    if not settings.dry_run:
        # Now, so that no training depends on a network; without parts, the first few steps need every shard anyway.
        cache.fetch(rows, should_stop, Progress(say is not None, "fetching the data"))
        if rows is None:  # others than these are to stay where they are
            refuse_unscorable(cache, split)
    sampler = MicroBatchSampler(plan)
    train = StructureDataset(cache, split.train, settings.batch_residues, settings.seed)
    validation = StructureDataset(cache, split.validation, None, settings.seed)

    def loader(dataset: StructureDataset, batch_sampler: object) -> DataLoader:
        return DataLoader(
            dataset,
            batch_sampler=batch_sampler,  # type: ignore[arg-type]  # any iterable of key lists will do
            collate_fn=collate,
            num_workers=settings.num_workers,
            persistent_workers=settings.num_workers > 0,
            worker_init_fn=listen_to_trainer,
            pin_memory=torch.cuda.is_available(),
        )

    return TrainingData(
        cache, split, plan, sampler, loader(train, sampler), loader(validation, FixedBatches(validation_batches))
    )


class FixedBatches:
    """A batch sampler that yields the same batches every time."""

    def __init__(self, batches: list[list[SampleKey]]):
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        return iter(self._batches)


def split_data(
    settings: Settings,
    cache: StructureCache,
    source: Path | str,
    show_progress: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
) -> Split:
    """The split of a cache that the options ask for; `show_progress` and `should_stop` as of `cluster_split`."""
    if settings.use_predefined_split:
        split_file = Path(settings.split_file) if settings.split_file else None
        return predefined_split(cache, source, split_file)
    cluster_file = Path(settings.cluster_file) if settings.cluster_file else None
    return cluster_split(
        cache,
        settings.seed,
        cluster_file=cluster_file,
        validation_fraction=settings.validation_fraction,
        progress=show_progress,
        should_stop=should_stop,
    )


def model_configuration(settings: Settings) -> ProteinModelConfig:
    """The model that the options ask for."""
    needs_matrix = settings.use_discrete_diffusion and settings.diffusion_kernel == "substitution"
    return ProteinModelConfig(
        hidden_dim=settings.hidden_dim,
        num_encoder_layers=settings.num_encoder_layers,
        num_decoder_layers=settings.num_decoder_layers,
        num_neighbors=settings.num_neighbors,
        dropout=settings.dropout,
        use_discrete_diffusion=settings.use_discrete_diffusion,
        num_diffusion_steps=settings.num_diffusion_steps,
        diffusion_kernel=settings.diffusion_kernel,
        substitution_matrix=blosum62_transition_matrix() if needs_matrix else None,
    )


def build_optimizer(model: nn.Module, weight_decay: float, device: torch.device) -> torch.optim.AdamW:
    """AdamW that decays weight matrices and leaves biases, normalisations and embeddings alone.

    The learning rate is set before every step.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for parameter in model.parameters():
        (decayed if parameter.ndim >= 2 and id(parameter) not in embeddings else kept).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), eps=1e-8, fused=device.type == "cuda")
