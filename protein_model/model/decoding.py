"""The denoiser without gradients, for many sequences on the same backbones: only what is asked for, block by block.

It computes what `SequenceDenoiser.forward` computes, to rounding. Sampling and scoring call the denoiser many times;
three things make that cheap. The part of a message that depends on edges alone is computed once. Where logits of a few
residues are wanted, the layers below are computed only at their neighbours, and the neighbours of these. Rows are
worked on in blocks that stay in the processor's cache. What more can be kept from one call to the next is in
`incremental`.

The result for a residue depends neither on its place nor on what else is computed with it: all matrix products are
batches of products of one shape, of the edges of one residue or of `ROWS` residues. On a GPU, where the kernel depends
on the size of the batch as well, all batches have the same size, the last one filled up.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from .decoder import SequenceDenoiser
from .encoder import EncodedBackbone
from .layers import ResidueUpdate

ROWS = 16  # rows of a product that are not the edges of one residue
CPU_BLOCK = 48  # residues per thread; with 48 neighbours and 128 features a block is 1.2 MB: the second cache holds it
GPU_BLOCK = 2048  # enough to fill a GPU


def product(rows: Tensor, linear: nn.Linear) -> Tensor:
    """(b, r, H) -> (b, r, H'): `linear` as a batch of `b` products of one shape, so that `b` has no influence."""
    weight = linear.weight.T.expand(len(rows), -1, -1)
    if linear.bias is None:
        return torch.bmm(rows, weight)
    return torch.baddbmm(linear.bias.expand(len(rows), 1, -1), rows, weight)


class SequenceDecoder:
    """The denoiser of a model on some backbones, `N` residues of `B` structures.

    Of `S` sequences, number s at residue n is pair n * S + s.

    Parameters
    ----------
    denoiser : in evaluation mode
    encoded : the backbones
    """

    def __init__(self, denoiser: SequenceDenoiser, encoded: EncodedBackbone):
        self._denoiser = denoiser
        self._encoded = encoded
        self._layers: list[ResidueUpdate] = list(denoiser.layers)  # type: ignore[arg-type]
        on_gpu = encoded.edges.device.type == "cuda"
        self._block = GPU_BLOCK if on_gpu else CPU_BLOCK * torch.get_num_threads()
        self._filled_to = GPU_BLOCK if on_gpu else 1
        self._hidden = encoded.residues.shape[-1]
        # Sums over neighbours are divided by the number that the model was made for, as in `ResidueUpdate`.
        self._weights = encoded.present.to(encoded.edges.dtype) / self._layers[0].num_neighbors
        self._edges = [self._projected_edges(layer) for layer in self._layers]

    def begin(self) -> None:
        """Say that other sequences follow. Nothing is kept here; see `incremental`."""

    def logits(self, tokens: Tensor, noise_level: Tensor, pairs: Tensor | None = None) -> Tensor:
        """Logits of the clean types.

        Parameters
        ----------
        tokens : (N, S) int64, 0 to 20
        noise_level : (B, S), 0 to 1
        pairs : (P,) int64, ascending: where logits are wanted; None for all

        Returns
        -------
        (P, 20) float32, P = N * S for all
        """
        total, sequences = tokens.numel(), tokens.shape[1]
        if pairs is None:
            pairs = torch.arange(total, device=tokens.device)
        if not len(pairs):
            return self._denoiser.to_logits.bias.new_zeros(0, self._denoiser.to_logits.out_features).float()
        needed = [pairs]
        for _ in self._layers:
            needed.insert(0, self._with_neighbours(needed[0], sequences, total))
        tokens = tokens.flatten()
        # Rows that are not computed stay zero; nothing reads them but messages of weight zero.
        state = self._encoded.residues.new_zeros(total, self._hidden)
        state[needed[0]] = self._embedded(tokens, needed[0], sequences)
        if self._denoiser.embed_noise is not None:
            noise = self._embedded_noise(noise_level.flatten())
            residue, sequence = needed[0] // sequences, needed[0] % sequences
            state[needed[0]] += noise[self._encoded.structure_index[residue] * sequences + sequence]
        for layer, edges, sources, targets in zip(self._layers, self._edges, needed, needed[1:], strict=False):
            as_neighbour, updated = torch.zeros_like(state), torch.zeros_like(state)
            as_neighbour[sources] = self._as_neighbours(layer, state[sources])
            sums = self._message_sums(
                layer, edges, as_neighbour, self._as_receivers(layer, state[targets]), targets, sequences
            )
            updated[targets] = self._updated(layer, state[targets], sums)
            state = updated
        return self._to_logits(state[pairs])

    # ------------------------------------------------------------------ parts of a layer, row by row

    def _embedded(self, tokens: Tensor, pairs: Tensor, sequences: int) -> Tensor:
        """(P, H) of residues and the tokens on them."""
        return self._encoded.residues.index_select(0, pairs // sequences) + self._denoiser.embed_tokens(tokens[pairs])

    def _embedded_noise(self, noise_level: Tensor) -> Tensor:
        """(B * S,) -> (B * S, H)"""
        embed = self._denoiser.embed_noise
        assert embed is not None
        waves = embed.waves(noise_level)
        return self._by_rows(waves, lambda rows: product(functional.gelu(product(rows, embed.first)), embed.second))

    def _as_neighbours(self, layer: ResidueUpdate, states: Tensor) -> Tensor:
        """Share of residues in the first layer of the messages that they send."""
        return self._by_rows(states, lambda rows: product(layer.message_norm(rows), layer.message.from_neighbour))

    def _as_receivers(self, layer: ResidueUpdate, states: Tensor) -> Tensor:
        """Share of residues in the first layer of the messages that they get."""
        return self._by_rows(states, lambda rows: product(layer.message_norm(rows), layer.message.from_residue))

    def _updated(self, layer: ResidueUpdate, states: Tensor, sums: Tensor) -> Tensor:
        """States (P, H) of residues after a layer, from those before and the sums of their messages.

        What `ResidueUpdate.take_in` computes, but block by block: in one product of all rows, as there, what a row gets
        may depend on the number of rows (with 256 features on two threads of a CPU it does).
        """

        def update(rows: Tensor) -> Tensor:
            before, gathered = rows.chunk(2, dim=-1)
            after = before + product(gathered.contiguous(), layer.message_out)
            norm, widen, activate, narrow = layer.feed_forward
            return after + product(activate(product(norm(after), widen)), narrow)  # type: ignore[arg-type]

        return self._by_rows(torch.cat([states, sums], dim=-1), update)

    def _to_logits(self, states: Tensor) -> Tensor:
        """(P, H) -> (P, 20) float32"""
        denoiser = self._denoiser
        return self._by_rows(states, lambda rows: product(denoiser.norm(rows), denoiser.to_logits)).float()

    def _message_sums(
        self,
        layer: ResidueUpdate,
        edges: Tensor,
        as_neighbour: Tensor,
        as_receiver: Tensor,
        targets: Tensor,
        sequences: int,
    ) -> Tensor:
        """(P, H), weighted sums of the messages to the pairs `targets`.

        Parameters
        ----------
        as_neighbour : (N * S, H) of all pairs
        as_receiver : (P, H) of the targets
        """
        sums = torch.empty_like(as_receiver)
        for start in range(0, len(targets), self._block):
            rows = targets[start : start + self._block]
            count = len(rows)
            rows, own = self._filled(rows), self._filled(as_receiver[start : start + self._block])
            first = edges.index_select(0, rows // sequences)
            first += as_neighbour.index_select(0, self._neighbour_pairs(rows, sequences).flatten()).view_as(first)
            first += own[:, None]
            messages = self._messages(first)
            sums[start : start + count] = torch.bmm(self._weights[rows // sequences, None], messages)[:count, 0]
        return sums

    @staticmethod
    def _messages(first: Tensor) -> Tensor:
        """(..., H) sums of the shares of residue, neighbour and edge -> (..., H) messages."""
        return functional.gelu(first)

    def _projected_edges(self, layer: ResidueUpdate) -> Tensor:
        """(N, K, H), the share of the edges in the first layer of each message."""
        edges = self._encoded.edges
        projected = torch.empty_like(edges)
        for start in range(0, len(edges), self._block):
            rows = edges[start : start + self._block]
            projected[start : start + len(rows)] = product(self._filled(rows), layer.message.from_edge)[: len(rows)]
        return projected

    # ------------------------------------------------------------------ rows and blocks

    def _neighbour_pairs(self, pairs: Tensor, sequences: int) -> Tensor:
        """(P, K)"""
        return self._encoded.neighbours.index_select(0, pairs // sequences) * sequences + (pairs % sequences)[:, None]

    def _with_neighbours(self, pairs: Tensor, sequences: int, total: int) -> Tensor:
        """Those pairs and all that send messages to them, ascending."""
        if len(pairs) == total:
            return pairs
        reached = torch.zeros(total, dtype=torch.bool, device=pairs.device)
        reached[pairs] = True
        reached[self._neighbour_pairs(pairs, sequences).flatten()] = True
        return reached.nonzero()[:, 0]

    def _by_rows(self, rows: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Apply a function of (b, ROWS, H) to (P, H), block by block."""
        results = []
        for block in rows.split(self._block * ROWS):
            together = self._filled(in_whole_blocks(block, ROWS).view(-1, ROWS, rows.shape[1]))
            results.append(function(together).flatten(0, 1)[: len(block)])
        return torch.cat(results) if len(results) != 1 else results[0]

    def _filled(self, rows: Tensor) -> Tensor:
        """Rows, the last one repeated up to a whole block where that matters; rows computed twice change nothing."""
        return in_whole_blocks(rows, self._filled_to)


def in_whole_blocks(rows: Tensor, size: int) -> Tensor:
    """Rows, the last one repeated until their number is a multiple of `size`."""
    missing = -len(rows) % size
    return torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])]) if missing else rows
