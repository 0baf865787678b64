"""From the gradients of single micro-batches to the gradient of the global batch, summed in one fixed order.

Ordinary data-parallel training sums in an order that depends on the number of processes, and floating-point sums then
differ in their last bits. Here the gradient of every shard is kept apart, all are gathered, and each process sums them
from the first shard to the last. That costs memory and traffic for one gradient per shard instead of one in all; what
it buys is the same weights, bit for bit, on any number of processes (`--deterministic`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import Tensor, nn


class OrderedReduction:
    """Collects the gradients of the shards that one process computes.

    Parameters
    ----------
    accelerator : joins the processes
    parameters : whose gradients are summed; each must have one after every backward pass
    """

    def __init__(self, accelerator: Accelerator, parameters: Sequence[nn.Parameter]):
        self._accelerator = accelerator
        self._parameters = parameters
        self._shards: list[Tensor] = []
        self._sums: list[Tensor] = []

    def add(self, sums: Tensor) -> None:
        """Take the gradients of one micro-batch from the parameters, with the sums of its loss, (S,)."""
        gradients = [parameter.grad for parameter in self._parameters]
        self._shards.append(torch.cat([gradient.flatten() for gradient in gradients if gradient is not None]))
        self._sums.append(sums)
        for parameter in self._parameters:
            parameter.grad = None

    def finish(self) -> Tensor:
        """Give the parameters the gradient of the global batch. Returns the sums over all shards, (S,)."""
        gradient = self._in_order(self._shards)
        sums = self._in_order(self._sums)
        start = 0
        for parameter in self._parameters:
            stop = start + parameter.numel()
            parameter.grad = gradient[start:stop].view_as(parameter).clone()
            start = stop
        self._shards.clear()
        self._sums.clear()
        return sums

    def _in_order(self, own: list[Tensor]) -> Tensor:
        processes = self._accelerator.num_processes
        gathered = self._accelerator.gather(torch.stack(own)).view(processes, len(own), -1)
        total = torch.zeros_like(own[0])
        for turn in range(len(own)):  # shard number = process + turn * processes
            for process in range(processes):
                total += gathered[process, turn]
        return total
