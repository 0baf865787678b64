"""FSDP2: every process holds a slice of the weights, of the optimizer state and of the average.

Accelerate divides the model. This module says which launches of this kind there are, and adds what Accelerate leaves
open: the arithmetic of data-parallel training, encoder and decoder called by themselves, and processes on CPUs. How
tensors are put together and cut is left to `slices`, checkpoints to `saving`.
"""

from __future__ import annotations

import os

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.fsdp import MixedPrecisionPolicy, register_fsdp_forward_method

from ..model.modeling import ProteinModel
from .launching import LaunchError

CPU_SHARDING = hasattr(torch.cpu.Stream, "record_event")  # FSDP2 calls it; torch 2.6 has it for GPUs only
_OTHERS = {"ACCELERATE_USE_DEEPSPEED": "DeepSpeed", "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM"}
_REFUSED = {  # what a launch config can set -> why not
    "fsdp_offload_params": "the weights stay on the device on which the model computes",
    "fsdp_activation_checkpointing": "Accelerate computes layers a second time with other dropout than the first time",
    "fsdp_ignored_modules": "the gradients of these modules would not be averaged over the processes",
}


def sharding_of_launch() -> FullyShardedDataParallelPlugin | None:
    """How the launcher wants the model divided; None where every process has all of it.

    Raises
    ------
    LaunchError : it is not possible in this way; the message names what is
    """
    for variable, name in _OTHERS.items():
        if _is_on(variable):
            raise LaunchError(
                f"this launch asks for {name}, which this trainer does not work with: its checkpoints could not be "
                "resumed by any other launch. Launch with accelerate_configs/multi_gpu_8.yaml or multi_node_2x8.yaml, "
                "or with fsdp2_8.yaml for a model that does not fit on one GPU"
            )
    if not _is_on("ACCELERATE_USE_FSDP"):
        return None
    version = os.environ.get("FSDP_VERSION", "1")
    if version != "2":
        raise LaunchError(
            f"this launch asks for FSDP version {version}, whose state this trainer cannot put together; set "
            "fsdp_version: 2, which does the same, as in accelerate_configs/fsdp2_8.yaml"
        )
    if os.environ.get("FSDP_AUTO_WRAP_POLICY", "").upper() == "SIZE_BASED_WRAP":
        raise LaunchError(
            "fsdp_auto_wrap_policy: SIZE_BASED_WRAP in the launch config cannot be used: it takes lists of layers for "
            "layers. Use TRANSFORMER_BASED_WRAP, as in accelerate_configs/fsdp2_8.yaml"
        )
    for name, reason in _REFUSED.items():
        if os.environ.get(name.upper(), "false").lower() not in ("false", ""):
            raise LaunchError(f"{name} in the launch config cannot be used: {reason}. Leave it out")
    return FullyShardedDataParallelPlugin(
        fsdp_version=2,
        # Without a policy of our own, Accelerate casts inputs and weights to 16 bits, and atoms would lose their
        # places. Where 16 bits are enough is left to autocast, as in data-parallel training.
        mixed_precision_policy=MixedPrecisionPolicy(),
        # What saves memory for one process to read a model for all makes `--start_from` fail on the others.
        cpu_ram_efficient_loading=False,
    )


def divide_on_cpus(accelerator: Accelerator, plugin: FullyShardedDataParallelPlugin | None) -> None:
    """Have the model divided among CPU processes too, where Accelerate would give each all of it without a word.

    Raises
    ------
    LaunchError : there are GPUs, which torch would take for the weights, or torch is too old
    """
    if plugin is None or accelerator.device.type != "cpu" or accelerator.num_processes == 1:
        return
    if torch.cuda.is_available():
        raise LaunchError("FSDP2 on CPU processes works only where no GPU is seen: set CUDA_VISIBLE_DEVICES= (empty)")
    if not CPU_SHARDING:
        raise LaunchError(
            f"FSDP2 on CPU processes needs a newer torch than {torch.__version__}: update torch, or launch with "
            "accelerate_configs/multi_gpu_8.yaml, which gives every process all of the model"
        )
    accelerator.state.fsdp_plugin = plugin
    accelerator.state.distributed_type = PartialState().distributed_type = DistributedType.FSDP


def gather_for_parts(network: ProteinModel) -> None:
    """Let `encode` and `decode` put the weights together when they are called by themselves, as `forward` does."""
    for method in ("encode", "decode"):
        register_fsdp_forward_method(network, method)


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() == "true"
