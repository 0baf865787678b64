"""Weights of a model folder in another floating-point type: 16 bits halve what is shared.

This is how weights are kept, not how they are computed with; that is float32, whatever they are kept in.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ..errors import UserError

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
_STORED = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}


class WeightsDoNotFit(UserError, ValueError):
    """A type cannot hold a weight."""


def convert_weights(path: Path, dtype: str) -> None:
    """Replace a `.safetensors` file by one with the same weights in another type.

    Parameters
    ----------
    dtype : one of `DTYPES`; whole numbers stay what they are

    Raises
    ------
    WeightsDoNotFit : a weight is beyond the range of the type, or is no finite number; the file stays as it was
    """
    weights = load_file(path)
    wanted = DTYPES[dtype]
    if all(tensor.dtype == wanted for tensor in weights.values() if tensor.is_floating_point()):
        return
    converted = {name: tensor.to(wanted) if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    for name, tensor in converted.items():
        if not torch.isfinite(tensor).all():
            worst = weights[name].abs().max().item()
            raise WeightsDoNotFit(
                f"--dtype {dtype}: the weights {name} have a value of {worst:.4g}, and {dtype} ends at "
                f"{torch.finfo(wanted).max:.4g}; give --dtype bfloat16 or float32, or train with more --weight_decay"
            )
    temporary = path.with_name(f".{path.name}")
    save_file(converted, temporary, metadata={"format": "pt"})
    shutil.copymode(path, temporary)  # safetensors lets nobody else read what it writes
    os.replace(temporary, path)


def describe_weights(path: Path) -> str:
    """How many trained numbers a `.safetensors` file has, and in which type."""
    count: Counter[str] = Counter()
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118  # it is no mapping
            part = file.get_slice(name)
            count[part.get_dtype()] += torch.Size(part.get_shape()).numel()
    return ", ".join(f"{number:,} in {_STORED.get(dtype, dtype)}" for dtype, number in count.most_common())
