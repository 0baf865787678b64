"""The work of an encoder layer on its edges as one function with a gradient of its own, and layers that make use of it.

`EncoderLayer` as torch runs it writes every intermediate result of every edge. Here the forward pass writes the new
edges and nothing else per edge, and the backward pass computes the rest again. Counted, not measured, for an edge of
width H in one layer with float32 edges, 16-bit autocast and dropout: kernels read and write 46 H bytes (10 forward, 36
backward) where those of torch read and write 140 H (56 and 84), and nothing is kept for the backward pass besides the
edges, where torch keeps another 6 H.

Numbers differ from those of `EncoderLayer` by rounding (less of it is done in 16 bits here) and by dropout, which is
drawn before that of the residues.

The kernels are in `fused_kernels`, imported with Triton when they are first used. Where they can be used is left to
`fusing`.
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..model.encoder import EncoderLayer
from ..model.layers import look_up
from ..model.modeling import ProteinModel
from .arguments import WIDEST_FUSED

GROUP = 16  # neighbours that a grouped kernel reads at a time, as `fused_kernels` has it


@dataclass(frozen=True)
class Launch:
    """How a kernel is run.

    Attributes
    ----------
    rows : edges in a tile
    grouped : a tile is some residues and, in turn, groups of their neighbours; otherwise it is any edges
    warps, stages : of a program, as Triton calls them
    at_once : programs that a multiprocessor has the registers and the shared memory for
    """

    rows: int
    grouped: bool
    warps: int
    stages: int
    at_once: int


# Chosen by what the compiler reports for an H100, not by timing: registers enough, and few or none kept in memory.
LAUNCHES = {
    "forward_kernel": Launch(rows=32, grouped=True, warps=4, stages=1, at_once=2),
    "message_backward_kernel": Launch(rows=32, grouped=True, warps=4, stages=1, at_once=2),
    "out_backward_kernel": Launch(rows=64, grouped=False, warps=8, stages=3, at_once=1),
    "edge_backward_kernel": Launch(rows=32, grouped=False, warps=8, stages=3, at_once=1),
}


@dataclass(frozen=True)
class EdgeWeights:
    """Parameters of the work on the edges: the normalisation before it, and the linear maps before and after the GELU.

    Attributes
    ----------
    norm_weight, norm_bias, out_bias : (H,)
    from_edge, out : (H, H)
    epsilon : of the normalisation
    """

    norm_weight: Tensor
    norm_bias: Tensor
    from_edge: Tensor
    out: Tensor
    out_bias: Tensor
    epsilon: float

    @classmethod
    def of_layer(cls, layer: EncoderLayer) -> EdgeWeights:
        """Those of a layer, themselves."""
        return cls(
            layer.edge_norm.weight,
            layer.edge_norm.bias,
            layer.residue_update.message.from_edge.weight,
            layer.edge_out.weight,
            layer.edge_out.bias,
            layer.edge_norm.eps,
        )


def edge_work(
    edges: Tensor,
    from_neighbour: Tensor,
    from_residue: Tensor,
    neighbours: Tensor,
    weights: Tensor,
    parameters: EdgeWeights,
    multiplier: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Gather the messages of all neighbours, and change the edges by them.

    Parameters
    ----------
    edges : (N, K, H), in the precision in which they are summed over the layers
    from_neighbour, from_residue : (N, H), shares of a residue in what goes into the GELU of the messages that it sends
        and that it gets; their type is that of the matrix products (TF32 where it is float32)
    neighbours : (N, K) int64
    weights : (N, K), of the messages in their sum
    multiplier : (N, H), of the changes of all edges of a residue, without a gradient; None for ones

    Returns
    -------
    gathered : (N, H)
    edges : (N, K, H)
    """
    p = parameters
    return _EdgeWork.apply(
        edges, from_neighbour, from_residue, neighbours, weights, multiplier, p.norm_weight, p.norm_bias, p.from_edge,
        p.out, p.out_bias, p.epsilon,
    )  # fmt: skip


def edge_work_in_torch(
    edges: Tensor,
    from_neighbour: Tensor,
    from_residue: Tensor,
    neighbours: Tensor,
    weights: Tensor,
    parameters: EdgeWeights,
    multiplier: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """As `edge_work`, without kernels: what these are compared with."""
    p = parameters
    normed = functional.layer_norm(edges, edges.shape[-1:], p.norm_weight, p.norm_bias, p.epsilon)
    before = look_up(from_neighbour, neighbours) + from_residue[:, None] + functional.linear(normed, p.from_edge)
    messages = functional.gelu(before)
    change = functional.linear(messages, p.out, p.out_bias)
    if multiplier is not None:
        change = change * multiplier[:, None]
    return (messages * weights[..., None]).sum(1), edges + change


def fuse_layers(network: ProteinModel) -> None:
    """Let all encoder layers compute by `edge_work`, with the parameters that they have, which keep their names."""
    for layer in network.encoder.layers:
        layer.forward = functools.partial(_fused_forward, layer)  # type: ignore[arg-type]


def _fused_forward(
    layer: EncoderLayer, residues: Tensor, edges: Tensor, neighbours: Tensor, present: Tensor
) -> tuple[Tensor, Tensor]:
    """As `EncoderLayer.forward`."""
    update = layer.residue_update
    normed = update.message_norm(residues)
    from_neighbour, from_residue = update.message.from_neighbour(normed), update.message.from_residue(normed)
    multiplier = None
    if layer.training and layer.dropout.p:
        multiplier = layer.dropout(torch.ones_like(from_residue))
    weights = present.to(from_residue.dtype) / update.num_neighbors
    gathered, edges = edge_work(
        edges, from_neighbour, from_residue, neighbours, weights, EdgeWeights.of_layer(layer), multiplier
    )
    return update.take_in(residues, gathered), edges


class _EdgeWork(torch.autograd.Function):
    """`edge_work` for autograd."""

    @staticmethod
    def forward(
        ctx: Any,
        edges: Tensor,
        from_neighbour: Tensor,
        from_residue: Tensor,
        neighbours: Tensor,
        weights: Tensor,
        multiplier: Tensor | None,
        norm_weight: Tensor,
        norm_bias: Tensor,
        edge_weight: Tensor,
        out_weight: Tensor,
        out_bias: Tensor,
        epsilon: float,
    ) -> tuple[Tensor, Tensor]:
        count, num_neighbours, width = edges.shape
        if width > WIDEST_FUSED:
            raise ValueError(f"edges must have a width of at most {WIDEST_FUSED}, but have {width}")
        if edges.numel() >= 2**31:
            raise ValueError(f"{count:,} residues are too many for one batch: places of edges must fit into 32 bits")
        dtype = from_neighbour.dtype
        edges, from_neighbour, from_residue, neighbours, weights = (
            each.contiguous() for each in (edges, from_neighbour, from_residue, neighbours, weights)
        )
        edge_matrix, out_matrix = edge_weight.to(dtype).contiguous(), out_weight.to(dtype).contiguous()
        multiplier = multiplier.contiguous() if multiplier is not None else None
        gathered, new_edges = torch.empty_like(from_residue), torch.empty_like(edges)
        _launch(
            "forward_kernel", edges,
            edges, from_neighbour, from_residue, neighbours, weights, norm_weight, norm_bias, edge_matrix, out_matrix,
            out_bias, multiplier, gathered, new_edges, count, epsilon,
            K=num_neighbours, MULTIPLIED=multiplier is not None,
        )  # fmt: skip
        ctx.save_for_backward(
            edges, from_neighbour, from_residue, neighbours, weights, multiplier, norm_weight, norm_bias, edge_weight,
            out_weight,
        )  # fmt: skip
        ctx.epsilon = epsilon
        return gathered, new_edges

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_gathered: Tensor, of_new_edges: Tensor) -> tuple[Tensor | None, ...]:
        (
            edges, from_neighbour, from_residue, neighbours, weights, multiplier, norm_weight, norm_bias, edge_weight,
            out_weight,
        ) = ctx.saved_tensors  # fmt: skip
        count, num_neighbours, width = edges.shape
        dtype = from_neighbour.dtype
        edge_matrix, out_matrix = edge_weight.to(dtype).contiguous(), out_weight.to(dtype).contiguous()
        of_gathered, of_new_edges = of_gathered.contiguous(), of_new_edges.contiguous()
        multiplied = multiplier is not None
        messages, of_before = (torch.empty_like(edges, dtype=dtype) for _ in range(2))
        of_from_residue = torch.empty_like(from_residue)
        _launch(
            "message_backward_kernel", edges,
            edges, from_neighbour, from_residue, neighbours, weights, norm_weight, norm_bias, edge_matrix, out_matrix,
            multiplier, of_gathered, of_new_edges, messages, of_before, of_from_residue, count, ctx.epsilon,
            K=num_neighbours, MULTIPLIED=multiplied,
        )  # fmt: skip
        num_edges = count * num_neighbours
        of_out_weight, of_out_bias = _parts("out_backward_kernel", edges, (width, width), (width,))
        _launch(
            "out_backward_kernel", edges,
            messages, multiplier, of_new_edges, of_out_weight, of_out_bias, num_edges,
            K=num_neighbours, MULTIPLIED=multiplied,
        )  # fmt: skip
        del messages
        of_edges = torch.empty_like(edges)
        of_edge_weight, of_norm_weight, of_norm_bias = _parts(
            "edge_backward_kernel", edges, (width, width), (width,), (width,)
        )
        _launch(
            "edge_backward_kernel", edges,
            edges, norm_weight, norm_bias, edge_matrix, of_new_edges, of_before, of_edges, of_edge_weight,
            of_norm_weight, of_norm_bias, num_edges, ctx.epsilon,
        )  # fmt: skip
        # The gradient of `look_up`, summed in an order that does not change from run to run.
        of_from_neighbour = torch.ops.aten.embedding_dense_backward(of_before, neighbours, count, -1, False)
        return (
            of_edges, of_from_neighbour, of_from_residue, None, None, None, of_norm_weight.sum(0).to(norm_weight.dtype),
            of_norm_bias.sum(0).to(norm_bias.dtype), of_edge_weight.sum(0).to(edge_weight.dtype),
            of_out_weight.sum(0).to(out_weight.dtype), of_out_bias.sum(0).to(norm_bias.dtype), None,
        )  # fmt: skip


def _launch(name: str, edges: Tensor, *arguments: Any, **constants: Any) -> None:
    """Run a kernel on the tiles of some edges (N, K, H)."""
    programs, launch = _programs(name, edges), LAUNCHES[name]
    if programs:
        kernel = getattr(importlib.import_module(".fused_kernels", __package__), name)
        width = edges.shape[-1]
        kernel[(programs,)](
            *arguments,
            **constants,
            H=width,
            WIDE=padded_width(width),
            ROWS=launch.rows,
            num_warps=launch.warps,
            num_stages=launch.stages,
        )


def _parts(name: str, edges: Tensor, *shapes: tuple[int, ...]) -> list[Tensor]:
    """Room for what each program of a kernel sums up."""
    programs = _programs(name, edges)
    return [torch.empty((programs, *shape), dtype=torch.float32, device=edges.device) for shape in shapes]


def _programs(name: str, edges: Tensor) -> int:
    launch = LAUNCHES[name]
    residues, num_neighbours, _ = edges.shape
    rows, in_tile = (residues, launch.rows // GROUP) if launch.grouped else (residues * num_neighbours, launch.rows)
    return min(-(-rows // in_tile), launch.at_once * _multiprocessors(edges.device))


@functools.cache
def _multiprocessors(device: torch.device) -> int:
    # On a CPU there are kernels in Triton's interpreter only, where a few programs are enough to see that sums work.
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


def padded_width(width: int) -> int:
    """The power of two that a kernel computes with; no product may be narrower than 16."""
    return max(16, 1 << (width - 1).bit_length())
