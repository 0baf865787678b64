"""What a training process really computes, written down step by step from inside it.

Only public hooks of PyTorch and the forward pass of the model are used, so that it works for any trainer: every
forward pass in training mode on at least one residue adds a digest of all its inputs (coordinates with their noise,
corrupted residues, noise levels), and every optimizer step writes one line with these digests, a digest of the
gradients and the learning rate. The number of the step is that which the optimizer itself keeps.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from protein_model.model.modeling import ProteinModel


def digest(*tensors: torch.Tensor) -> str:
    """16 hexadecimal digits that depend on every bit of the tensors, as far as this process holds them."""
    hashed = hashlib.blake2b(digest_size=8)
    for tensor in tensors:
        if isinstance(tensor, DTensor):
            tensor = tensor.to_local()
        hashed.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return hashed.hexdigest()


def install_trace(path: Path, rank: int, processes: int) -> None:
    """Append a JSON line per optimizer step to `path`: step (from 1), rank, processes, inputs, gradient, time, rate."""
    forward = ProteinModel.forward
    inputs: list[str] = []

    @functools.wraps(forward)
    def traced(self: ProteinModel, *positional: Any, **named: Any) -> Any:
        # A process may run the model on a batch without a residue, to keep step with others; nothing comes of it.
        if self.training and named["backbone_mask"].any():
            given = [*positional, *(named[name] for name in sorted(named))]
            inputs.append(digest(*(value for value in given if isinstance(value, torch.Tensor))))
        return forward(self, *positional, **named)

    ProteinModel.forward = traced  # type: ignore[method-assign]
    # One write per line: it is in the file whole or not at all, also when the process is killed.
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def before_step(optimizer: torch.optim.Optimizer, _positional: Any, _named: Any) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        done = optimizer.state[parameters[0]].get("step", 0) if parameters[0] in optimizer.state else 0
        line = {
            "step": int(done) + 1,
            "rank": rank,
            "processes": processes,
            "inputs": list(inputs),
            "gradient": digest(*(parameter.grad for parameter in parameters if parameter.grad is not None)),
            "time": time.time(),
            "rate": optimizer.param_groups[0]["lr"],
        }
        inputs.clear()
        os.write(file, (json.dumps(line) + "\n").encode())

    register_optimizer_step_pre_hook(before_step)
