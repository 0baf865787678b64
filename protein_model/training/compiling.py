"""`--compile`: which parts of the network are compiled, for which shape, and where that is not possible.

Compiled are, each by itself and in place (`nn.Module.compile`), the geometry and every layer: nearly all of the time,
and parameters keep their names, so that checkpoints, data-parallel training and FSDP2 see the modules that they know.
Layers of one kind share their graphs: one for training, one for validation. Not compiled is what depends on the number
of structures or on the length of one: noise levels, corruption, the neighbour graph.

Accelerate's own ways are not taken: `Accelerator(dynamo_plugin=...)` compiles the network as a whole, neighbour graph
included, and anew for every batch; its regional compilation puts wrappers around the layers that rename parameters, or
also compiles all small modules beside the layers, one by one.

That every batch has the same number of rows is seen to by `BackboneEncoder`: it fills batches up after the neighbour
graph is made. So loaders, draws and losses are those of a run that is not compiled.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DynamoBackend
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from ..model.modeling import ProteinModel
from .launching import LaunchError

BACKEND: Any = "inductor"  # tests put one here that needs no compiler


def refuse_impossible_compilation(accelerator: Accelerator, wanted: bool) -> None:
    """Find out early whether this machine can compile, and refuse the launch where it cannot.

    Parameters
    ----------
    wanted : `--compile`

    Raises
    ------
    LaunchError : says what is missing, or which option to use
    """
    if accelerator.state.dynamo_plugin.backend != DynamoBackend.NO:
        raise LaunchError(
            f"the launch config asks for dynamo_backend {accelerator.state.dynamo_plugin.backend.value}, which would "
            "compile the network anew for every batch: take that out and give --compile"
        )
    if not wanted:
        return
    try:
        torch.compile(_trial, backend=BACKEND, dynamic=False, fullgraph=True)(torch.ones(64, device=accelerator.device))
    except (RuntimeError, OSError, ImportError) as error:
        needed = "Triton (pip install triton) and a C compiler" if accelerator.device.type == "cuda" else "g++"
        raise LaunchError(
            f"--compile: torch.compile does not work here: {_reason(error)}. It needs {needed}, for example from "
            "`apt install g++`, or the path of another compiler in the environment variable CXX (on a GPU also CC). "
            "Without --compile the same run needs neither"
        ) from error


def _trial(values: Tensor) -> Tensor:
    return torch.nn.functional.gelu(values) * values


def _reason(error: BaseException) -> str:
    """The first line of what went wrong in the compiler; torch says more around it."""
    cause = getattr(error, "inner_exception", error)
    return next((line.strip().rstrip(".") for line in str(cause).splitlines() if line.strip()), type(cause).__name__)


def compile_network(network: ProteinModel, residues: int) -> None:
    """Have the network compiled when it runs for the first time, in training and in validation.

    Parameters
    ----------
    network : unwrapped
    residues : that every batch is filled up to
    """
    # Compiled layers are smaller than the buckets of gradients that torch would otherwise cut them up at.
    torch._dynamo.config.optimize_ddp = False
    network.encoder.filled_to = residues
    for region in _regions(network):
        # A graph that cannot be made whole, or in which a shape varies, is an error, not a slow run.
        region.compile(backend=BACKEND, dynamic=False, fullgraph=True)


def _regions(network: ProteinModel) -> Iterator[nn.Module]:
    """What is compiled, each by itself."""
    yield network.encoder.geometry
    for layer in (*network.encoder.layers, *network.decoder.layers):
        if any(isinstance(part, FSDPModule) for part in layer.children()):
            # FSDP2 puts the weights of such a part together when it is called, which nothing compiled may hold.
            yield from (part for part in layer.children() if not isinstance(part, nn.LayerNorm))
        else:
            yield layer


def uncompiled_where_longer(network: ProteinModel, residues: int) -> contextlib.AbstractContextManager[Any]:
    """Within the context, a network that is compiled for fewer than so many residues computes as if it were not."""
    longest = network.encoder.filled_to
    if longest is None or residues <= longest:
        return contextlib.nullcontext()
    return torch.compiler.set_stance("force_eager")
