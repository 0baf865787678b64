"""The `Accelerator` of a run, and whether what it computes is to be the same every time."""

from __future__ import annotations

import os

import torch
from accelerate import Accelerator, DataLoaderConfiguration
from accelerate.utils import DistributedDataParallelKwargs

from .arguments import GivenOptions, Settings
from .launching import LaunchError, process_group_options
from .sharding import divide_on_cpus, sharding_of_launch


def accelerator_of(given: GivenOptions) -> Accelerator:
    """The one that the launcher and the options ask for; processes have found each other when it is there."""
    sharding = sharding_of_launch()
    accelerator = Accelerator(
        mixed_precision=given.values.get("mixed_precision"),
        dataloader_config=DataLoaderConfiguration(even_batches=False, non_blocking=True),
        kwargs_handlers=[
            DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
            process_group_options(timeout_seconds(given)),
        ],
        fsdp_plugin=sharding,
    )
    divide_on_cpus(accelerator, sharding)
    return accelerator


def timeout_seconds(given: GivenOptions) -> float:
    """Needed before the options of a resumed run are known, and not taken from its checkpoint."""
    return 60.0 * given.values.get("timeout_minutes", Settings.timeout_minutes)


def refuse_impossible_order(accelerator: Accelerator, deterministic: bool) -> None:
    """Refuse `--deterministic` where no process has all gradients.

    Raises
    ------
    LaunchError
    """
    if deterministic and accelerator.is_fsdp2:
        raise LaunchError(
            "--deterministic sums the gradients of all weights in one order, which no process can where each has a "
            "slice of them (FSDP2): give --deterministic False, or launch with accelerate_configs/multi_gpu_8.yaml"
        )


def choose_deterministic_algorithms(accelerator: Accelerator, deterministic: bool) -> None:
    """Have torch compute the same every time: always on CPUs, where it costs nothing, and elsewhere if asked for."""
    if deterministic or accelerator.device.type == "cpu":
        # On several threads even a CPU adds up gathered gradients in the order in which threads arrive.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=accelerator.device.type != "cpu")
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
