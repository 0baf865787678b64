"""`--fused_layers`: where the kernels of `fused_layer` can be used, found out before training begins.

Whether the machine has what they need, and whether they compute there what torch computes, is tried on a few edges of
the size and the precision of the run. No kernel has been timed, or run, on a GPU yet: a compiler may always surprise.
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor

from ..errors import first_line
from .arguments import Settings
from .fused_layer import EdgeWeights, edge_work, edge_work_in_torch
from .launching import LaunchError

_PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}
_LARGEST_ERROR = 0.03  # relative; in bf16, rounding makes 0.01 of it
_WITHOUT = "Without --fused_layers the same run needs none of this"


def refuse_impossible_fusion(accelerator: Accelerator, settings: Settings) -> None:
    """Refuse a launch with `--fused_layers` where that does not work.

    Raises
    ------
    LaunchError : says what is missing or wrong, and what to do
    """
    if not settings.fused_layers:
        return
    if accelerator.is_fsdp2:
        raise LaunchError(
            "--fused_layers takes the weights of several parts of a layer at once, which are not put together where "
            "each process has a slice of them (FSDP2): leave it out, or launch with accelerate_configs/multi_gpu_8.yaml"
        )
    if accelerator.mixed_precision not in _PRECISIONS:
        raise LaunchError(
            f"--fused_layers is for matrix products in 16 bits, but the precision is {accelerator.mixed_precision}: "
            "give --mixed_precision bf16 too, or leave it out"
        )
    if accelerator.device.type != "cuda":
        raise LaunchError(
            f"--fused_layers needs a CUDA GPU, but this run is on the device {accelerator.device.type}: leave it out. "
            f"{_WITHOUT}"
        )
    try:
        from triton.errors import TritonError
    except ImportError as error:
        raise LaunchError(
            f"--fused_layers needs Triton, which cannot be imported ({error}): pip install triton. {_WITHOUT}"
        ) from error
    try:
        name, worst = worst_difference(settings, _PRECISIONS[accelerator.mixed_precision], accelerator.device)
    except (TritonError, RuntimeError, OSError) as error:
        raise LaunchError(
            f"--fused_layers: its kernels do not run on {torch.cuda.get_device_name(accelerator.device)}: "
            f"{first_line(error)}. "
            f"They need a C compiler (apt install gcc), and a GPU with the shared memory of an A100 or H100. {_WITHOUT}"
        ) from error
    if not worst < _LARGEST_ERROR:
        raise LaunchError(
            f"--fused_layers: on {torch.cuda.get_device_name(accelerator.device)} its kernels do not compute what "
            f"torch does ({name} is off by {worst:.1%}): leave it out, and please report it with the versions of torch "
            "and Triton"
        )


def worst_difference(settings: Settings, dtype: torch.dtype, device: torch.device) -> tuple[str, float]:
    """Compare the kernels, forward and backward, with torch in float32 on some random edges.

    Returns
    -------
    what differs most, and how much, relative to its norm; infinity where something is not finite
    """
    generator = torch.Generator().manual_seed(0)
    count, num_neighbours, width = 40, settings.num_neighbors, settings.hidden_dim

    def drawn(*shape: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(shape, generator=generator)).to(device)

    inputs = {"edges": drawn(count, num_neighbours, width)}
    inputs |= {name: drawn(count, width).to(dtype) for name in ("from_neighbour", "from_residue")}
    parameters = {name: 1 + drawn(width, scale=0.1) for name in ("norm_weight", "norm_bias", "out_bias")}
    parameters |= {name: drawn(width, width, scale=width**-0.5) for name in ("from_edge", "out")}
    neighbours = torch.randint(0, count, (count, num_neighbours), generator=generator).to(device)
    weights = ((drawn(count, num_neighbours) > -1) / num_neighbours).to(dtype)
    multiplier = (drawn(count, width) > -1).to(dtype)
    gradients = drawn(count, width), drawn(count, num_neighbours, width)

    def results(work, wanted: torch.dtype) -> dict[str, Tensor]:  # type: ignore[no-untyped-def]
        own = {name: value.detach().clone().requires_grad_() for name, value in parameters.items()}
        given = {
            name: value.to(torch.float32 if name == "edges" else wanted).detach().clone().requires_grad_()
            for name, value in inputs.items()
        }
        outputs = work(
            *given.values(),
            neighbours,
            weights.to(wanted),
            EdgeWeights(**own, epsilon=1e-5),
            multiplier.to(wanted),
        )
        targets = {**given, **own}
        of_outputs = [gradient.to(output.dtype) for gradient, output in zip(gradients, outputs, strict=True)]
        found = torch.autograd.grad(outputs, list(targets.values()), of_outputs)
        named = {f"the gradient of {name}": value for name, value in zip(targets, found, strict=True)}
        return {"the sum of the messages": outputs[0], "what the edges become": outputs[1], **named}

    fused, plain = results(edge_work, dtype), results(edge_work_in_torch, torch.float32)
    differences = {
        name: float((fused[name].float() - value).norm() / value.norm())
        if fused[name].isfinite().all()
        else float("inf")
        for name, value in plain.items()
    }
    name = max(differences, key=differences.__getitem__)
    return name, differences[name]
