"""Tensors of which every process holds a slice only: put together, and cut again.

Under FSDP2 weights, gradients, optimizer state and average are such tensors (torch calls them DTensor). All functions
leave tensors that are whole as they are, so that callers need not tell one launch from the other. Which launches
divide the model is left to `sharding`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Replicate


def is_sliced(tensor: Tensor) -> bool:
    """Whether this process holds a slice of it only."""
    return isinstance(tensor, DTensor)


def own_slice(tensor: Tensor) -> Tensor:
    """What this process holds, in the same memory: who changes it in place changes the tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """The tensor put together. All processes must ask for it, in the same order."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def sliced_like(tensor: Tensor, pattern: Tensor) -> Tensor:
    """A whole tensor, which every process has, cut as `pattern` is cut: a copy, made without the other processes."""
    if not isinstance(pattern, DTensor):
        return tensor
    everywhere = [Replicate()] * pattern.device_mesh.ndim
    copies = DTensor.from_local(tensor, pattern.device_mesh, everywhere, run_check=False)
    return copies.redistribute(placements=pattern.placements).clone()  # not a view that keeps the whole alive


def drop_gathered(module: nn.Module) -> None:
    """Forget weights that were put together for a forward pass. A later pass gathers them anew from the slices."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()
