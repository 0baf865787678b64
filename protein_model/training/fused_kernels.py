"""Triton kernels of `fused_layer`: the work of an encoder layer on its edges, one forward and three for the gradients.

A program goes over its share of the tiles, one after the other, with the weights on the chip. Where there are sums over
neighbours, a tile is GROUP neighbours each of some residues, and a program goes on to the next GROUP of the same
residues, so that the sums stay within it; elsewhere it is any rows of edges. Products take 16 bits, as
`from_neighbour` has them, and are summed in float32, as is everything else. Gradients of weights are summed over the
tiles of a program, which writes them as one part of the whole: the caller adds the parts up. That gives the same bits
every time, as atomic additions would not. For the same reason nothing is tuned while it runs: other tiles round
otherwise.

The gradient of a square matrix takes a quarter of the registers of a multiprocessor at width 128. So no kernel sums two
of them, and the one that computes the gradient of the messages sums none.

WIDE is the power of two that Triton wants of a width. What is beyond the width H, the K neighbours and the last row is
read as zero, and adds nothing to any sum.

Launching, and what the gradients belong to, is left to `fused_layer`. Importing this module imports Triton.
"""

import triton
import triton.language as tl

GROUP = tl.constexpr(16)


@triton.jit
def _gelu_parts(x):
    """The normal distribution function of x, and its density."""
    return 0.5 * (1.0 + tl.erf(x * 0.7071067811865476)), 0.3989422804014327 * tl.exp(-0.5 * x * x)


@triton.jit
def _normalised(x, in_width, epsilon, H: tl.constexpr):
    """Rows less their mean and over their deviation, zero beyond the width; one over the deviation."""
    centred = tl.where(in_width[None, :], x - (tl.sum(x, 1) / H)[:, None], 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, 1) / H + epsilon)
    return centred * scale[:, None], scale


@triton.jit
def _vector(start, column, in_width):
    return tl.load(start + column, mask=in_width, other=0.0).to(tl.float32)


@triton.jit
def _matrix(start, column, in_width, H: tl.constexpr):
    """A square of weights, (out, in)."""
    return tl.load(start + column[:, None] * H + column[None, :], mask=in_width[:, None] & in_width[None, :], other=0.0)


@triton.jit
def _rows(start, row, inside, column, in_width, H: tl.constexpr):
    """Some rows of a matrix of width H."""
    mask = inside[:, None] & in_width[None, :]
    return tl.load(start + row[:, None] * H + column[None, :], mask=mask, other=0.0)


@triton.jit
def _store_rows(start, values, row, inside, column, in_width, H: tl.constexpr):
    mask = inside[:, None] & in_width[None, :]
    tl.store(start + row[:, None] * H + column[None, :], values.to(start.dtype.element_ty), mask=mask)


@triton.jit
def _before_gelu(
    edges, from_neighbour, from_residue, neighbours, gain, shift, of_edge, edge, residue, inside, column, in_width,
    epsilon, H: tl.constexpr,
):  # fmt: skip
    """What goes into the GELU, for a tile of edges."""
    x = _rows(edges, edge, inside, column, in_width, H).to(tl.float32)
    standard, _ = _normalised(x, in_width, epsilon, H)
    normed = (standard * gain[None, :] + shift[None, :]).to(of_edge.dtype)
    neighbour = tl.load(neighbours + edge, mask=inside, other=0).to(tl.int32)
    others = _rows(from_neighbour, neighbour, inside, column, in_width, H).to(tl.float32)
    others += _rows(from_residue, residue, inside, column, in_width, H).to(tl.float32)
    return tl.dot(normed, tl.trans(of_edge)) + others


@triton.jit(do_not_specialize=["num_residues"])
def forward_kernel(
    edges, from_neighbour, from_residue, neighbours, weights, norm_weight, norm_bias, edge_weight, out_weight, out_bias,
    multiplier, gathered, new_edges, num_residues, epsilon,
    H: tl.constexpr, K: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, MULTIPLIED: tl.constexpr,
):  # fmt: skip
    """Writes gathered (N, H) and new_edges (N, K, H)."""
    column = tl.arange(0, WIDE)
    in_width = column < H
    row = tl.arange(0, ROWS)
    RESIDUES: tl.constexpr = ROWS // GROUP
    gain, shift = _vector(norm_weight, column, in_width), _vector(norm_bias, column, in_width)
    added = _vector(out_bias, column, in_width)
    of_edge, of_out = _matrix(edge_weight, column, in_width, H), _matrix(out_weight, column, in_width, H)
    for tile in range(tl.program_id(0), tl.cdiv(num_residues, RESIDUES), tl.num_programs(0)):
        residue = tile * RESIDUES + row // GROUP
        total = tl.zeros((RESIDUES, WIDE), tl.float32)
        for start in range(0, K, GROUP):
            place = start + row % GROUP
            inside = (residue < num_residues) & (place < K)
            edge = residue * K + place
            before = _before_gelu(
                edges, from_neighbour, from_residue, neighbours, gain, shift, of_edge, edge, residue, inside, column,
                in_width, epsilon, H,
            )  # fmt: skip
            below, _ = _gelu_parts(before)
            message = before * below
            weight = tl.load(weights + edge, mask=inside, other=0.0).to(tl.float32)
            total += tl.sum(tl.reshape(message * weight[:, None], (RESIDUES, GROUP, WIDE)), 1)
            change = tl.dot(message.to(of_out.dtype), tl.trans(of_out)) + added[None, :]
            if MULTIPLIED:
                change *= _rows(multiplier, residue, inside, column, in_width, H).to(tl.float32)
            change += _rows(edges, edge, inside, column, in_width, H).to(tl.float32)
            _store_rows(new_edges, change, edge, inside, column, in_width, H)
        first = tile * RESIDUES + tl.arange(0, RESIDUES)
        _store_rows(gathered, total, first, first < num_residues, column, in_width, H)


@triton.jit(do_not_specialize=["num_residues"])
def message_backward_kernel(
    edges, from_neighbour, from_residue, neighbours, weights, norm_weight, norm_bias, edge_weight, out_weight,
    multiplier, of_gathered, of_new_edges, messages, of_before, of_from_residue, num_residues, epsilon,
    H: tl.constexpr, K: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, MULTIPLIED: tl.constexpr,
):  # fmt: skip
    """From the gradients of what is given out to those of what goes into the GELU, of_before (N, K, H).

    Also writes of_from_residue (N, H), and the messages (N, K, H), which `out_backward_kernel` reads.
    """
    column = tl.arange(0, WIDE)
    in_width = column < H
    row = tl.arange(0, ROWS)
    RESIDUES: tl.constexpr = ROWS // GROUP
    gain, shift = _vector(norm_weight, column, in_width), _vector(norm_bias, column, in_width)
    of_edge, of_out = _matrix(edge_weight, column, in_width, H), _matrix(out_weight, column, in_width, H)
    for tile in range(tl.program_id(0), tl.cdiv(num_residues, RESIDUES), tl.num_programs(0)):
        residue = tile * RESIDUES + row // GROUP
        total = tl.zeros((RESIDUES, WIDE), tl.float32)
        for start in range(0, K, GROUP):
            place = start + row % GROUP
            inside = (residue < num_residues) & (place < K)
            edge = residue * K + place
            before = _before_gelu(
                edges, from_neighbour, from_residue, neighbours, gain, shift, of_edge, edge, residue, inside, column,
                in_width, epsilon, H,
            )  # fmt: skip
            below, density = _gelu_parts(before)
            _store_rows(messages, before * below, edge, inside, column, in_width, H)
            slope = below + before * density
            of_change = _rows(of_new_edges, edge, inside, column, in_width, H).to(tl.float32)
            if MULTIPLIED:
                of_change *= _rows(multiplier, residue, inside, column, in_width, H).to(tl.float32)
            weight = tl.load(weights + edge, mask=inside, other=0.0).to(tl.float32)
            of_message = weight[:, None] * _rows(of_gathered, residue, inside, column, in_width, H).to(tl.float32)
            of_message += tl.dot(of_change.to(of_out.dtype), of_out)
            gradient = of_message * slope
            _store_rows(of_before, gradient, edge, inside, column, in_width, H)
            total += tl.sum(tl.reshape(gradient, (RESIDUES, GROUP, WIDE)), 1)
        first = tile * RESIDUES + tl.arange(0, RESIDUES)
        _store_rows(of_from_residue, total, first, first < num_residues, column, in_width, H)


@triton.jit(do_not_specialize=["num_edges"])
def out_backward_kernel(
    messages, multiplier, of_new_edges, out_weight_parts, out_bias_parts, num_edges,
    H: tl.constexpr, K: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr,
    MULTIPLIED: tl.constexpr,
):  # fmt: skip
    """Writes the parts of the gradients of the linear map from messages to changes of the edges."""
    column = tl.arange(0, WIDE)
    in_width = column < H
    weight_sum = tl.zeros((WIDE, WIDE), tl.float32)
    bias_sum = tl.zeros((WIDE,), tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(num_edges, ROWS), tl.num_programs(0)):
        edge = tile * ROWS + tl.arange(0, ROWS)
        inside = edge < num_edges
        message = _rows(messages, edge, inside, column, in_width, H)
        of_change = _rows(of_new_edges, edge, inside, column, in_width, H).to(tl.float32)
        if MULTIPLIED:
            of_change *= _rows(multiplier, edge // K, inside, column, in_width, H).to(tl.float32)
        bias_sum += tl.sum(of_change, 0)
        weight_sum = tl.dot(tl.trans(of_change.to(message.dtype)), message, weight_sum)
    part = tl.program_id(0)
    _store_rows(out_weight_parts + part * H * H, weight_sum, column, in_width, column, in_width, H)
    tl.store(out_bias_parts + part * H + column, bias_sum, mask=in_width)


@triton.jit(do_not_specialize=["num_edges"])
def edge_backward_kernel(
    edges, norm_weight, norm_bias, edge_weight, of_new_edges, of_before, of_edges, edge_weight_parts, norm_weight_parts,
    norm_bias_parts, num_edges, epsilon,
    H: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """From the gradients of what goes into the GELU to those of the edges, of_edges (N, K, H).

    Also writes the parts of the gradients of the linear map of the edges and of the normalisation before it.
    """
    column = tl.arange(0, WIDE)
    in_width = column < H
    gain, shift = _vector(norm_weight, column, in_width), _vector(norm_bias, column, in_width)
    of_edge = _matrix(edge_weight, column, in_width, H)
    edge_weight_sum = tl.zeros((WIDE, WIDE), tl.float32)
    norm_weight_sum, norm_bias_sum = tl.zeros((WIDE,), tl.float32), tl.zeros((WIDE,), tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(num_edges, ROWS), tl.num_programs(0)):
        edge = tile * ROWS + tl.arange(0, ROWS)
        inside = edge < num_edges
        x = _rows(edges, edge, inside, column, in_width, H).to(tl.float32)
        standard, scale = _normalised(x, in_width, epsilon, H)
        normed = (standard * gain[None, :] + shift[None, :]).to(of_edge.dtype)
        gradient = _rows(of_before, edge, inside, column, in_width, H)
        edge_weight_sum = tl.dot(tl.trans(gradient), normed, edge_weight_sum)
        of_normed = tl.dot(gradient, of_edge)
        norm_weight_sum += tl.sum(of_normed * standard, 0)
        norm_bias_sum += tl.sum(of_normed, 0)
        of_standard = of_normed * gain[None, :]
        mean, slope = tl.sum(of_standard, 1) / H, tl.sum(of_standard * standard, 1) / H
        of_x = (of_standard - mean[:, None] - standard * slope[:, None]) * scale[:, None]
        of_x += _rows(of_new_edges, edge, inside, column, in_width, H).to(tl.float32)
        _store_rows(of_edges, of_x, edge, inside, column, in_width, H)
    part = tl.program_id(0)
    _store_rows(edge_weight_parts + part * H * H, edge_weight_sum, column, in_width, column, in_width, H)
    tl.store(norm_weight_parts + part * H + column, norm_weight_sum, mask=in_width)
    tl.store(norm_bias_parts + part * H + column, norm_bias_sum, mask=in_width)
