"""What a run is, for `settings.json` and the manifests of checkpoints, and in the lines that it begins with."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import accelerate
import torch
import transformers
from accelerate import Accelerator

from .. import __version__
from ..wording import counted
from .arguments import Settings, absolute_paths
from .launching import describe_batch
from .preparation import TrainingData
from .schedule import Schedule


def run_description(
    settings: Settings,
    save_dir: Path,
    data: TrainingData,
    schedule: Schedule,
    shards: int,
    accelerator: Accelerator,
) -> dict[str, Any]:
    """All that a later launch is compared with, as plain values."""
    split, names = data.split, data.cache.names
    return {
        "settings": absolute_paths({**settings.to_dict(), "save_dir": str(save_dir)}),
        "data": {
            "fingerprint": data.cache.fingerprint,
            "training_structures": len(split.train),
            "validation_structures": len(split.validation),
            "validation_set": _names_key([names[row] for row in split.validation.tolist()]),
            "steps_per_epoch": data.plan.steps_per_epoch,
        },
        "schedule": schedule.to_dict(),
        "shards": shards,
        "processes": accelerator.num_processes,
        "mixed_precision": accelerator.mixed_precision,
        "versions": package_versions(),
    }


def package_versions() -> dict[str, str]:
    """Versions of what a checkpoint depends on."""
    return {
        "protein_model": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "accelerate": accelerate.__version__,
        "transformers": transformers.__version__,
    }


def lines_about(
    settings: Settings,
    data: TrainingData,
    schedule: Schedule,
    shards: int,
    accelerator: Accelerator,
    parameters: int,
) -> Iterator[str]:
    """What is trained on what, for people."""
    yield data.split.description
    yield (
        f"{parameters:,} parameters · {accelerator.num_processes} process"
        f"{'es' if accelerator.num_processes > 1 else ''} on {accelerator.device.type}"
        f"{', each with a slice of the model (FSDP2)' if accelerator.is_fsdp2 else ''}, precision "
        f"{accelerator.mixed_precision} · {len(data.split.train):,} training and "
        f"{counted(len(data.split.validation), 'validation structure')} · "
        f"{counted(data.plan.steps_per_epoch, 'optimizer step')} per epoch · {counted(settings.epochs, 'epoch')}"
    )
    yield describe_batch(
        settings.batch_size,
        settings.batch_residues,
        shards,
        accelerator.num_processes,
        data.plan.lengths,
        data.plan.steps_per_epoch,
    )
    if settings.compile:
        longer = int((data.cache.lengths[data.split.validation] > (settings.batch_residues or 0)).sum())
        yield (
            "The network is compiled in the first step and in the first validation, for batches of "
            f"{settings.batch_residues:,} residues (--compile)"
            + (f"; {longer:,} validation structures are longer, and validated without" if longer else "")
        )
    if settings.scale_learning_rate != "none":
        yield (
            f"Learning rate {settings.learning_rate:.3e} scaled for {shards} micro-batches per optimizer "
            f"step: peak {schedule.peak:.3e} (--scale_learning_rate {settings.scale_learning_rate})"
        )


def schedule_text(schedule: Schedule, steps_per_epoch: int) -> str:
    """A schedule in half a line."""
    rate = f"peak {schedule.peak:.3e}, warm-up {schedule.warmup_steps:,} steps, end at step {schedule.total_steps:,}"
    begun = f", begun at step {schedule.start_step:,}" if schedule.start_step else ""
    return f"{rate} (epoch {schedule.total_steps / steps_per_epoch:g}){begun}"


def _names_key(names: list[str]) -> str:
    return hashlib.blake2b("\n".join(sorted(names)).encode(), digest_size=8).hexdigest()
