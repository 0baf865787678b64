"""The denoiser without gradients, for many sequences on the same backbones: only what is asked for, block by block.

It computes what `SequenceDenoiser.forward` computes, to rounding. Sampling and scoring call the denoiser many times;
three things make that cheap. The part of a message that depends on edges alone is computed once. Where logits of a few
residues are wanted, the layers below are computed only at their neighbours, and the neighbours of these. Rows are
worked on in blocks that stay in the processor's cache.

Blocks all have the same size, the last one filled up, so that every matrix product has the same shape and the result
for a residue depends neither on its place nor on what else is computed with it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .decoder import SequenceDenoiser
from .encoder import EncodedBackbone
from .layers import ResidueUpdate

CPU_BLOCK = 48  # rows per thread; with 48 neighbours and 128 features a block is 1.2 MB, and the second cache holds it
GPU_BLOCK = 2048  # enough to fill a GPU


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
        device = encoded.edges.device
        self._block = GPU_BLOCK if device.type == "cuda" else CPU_BLOCK * torch.get_num_threads()
        self._hidden = encoded.residues.shape[-1]
        # Sums over neighbours are divided by the number that the model was made for, as in `ResidueUpdate`.
        self._weights = encoded.present.to(encoded.edges.dtype)[:, None] / self._layers[0].num_neighbors
        self._edges = [self._projected_edges(layer) for layer in self._layers]

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
        noise = self._embedded(noise_level.flatten())
        # Rows that are not computed stay zero; nothing reads them but messages of weight zero.
        state = noise.new_zeros(total, self._hidden)
        for rows in self._blocks(needed[0]):
            residue, sequence = rows // sequences, rows % sequences
            state[rows] = (
                self._encoded.residues[residue]
                + self._denoiser.embed_tokens(tokens[rows])
                + noise[self._encoded.structure_index[residue] * sequences + sequence]
            )
        for layer, edges, sources, targets in zip(self._layers, self._edges, needed, needed[1:], strict=False):
            state = self._apply(layer, edges, state, sources, targets, sequences)
        logits = noise.new_empty(total, self._denoiser.to_logits.out_features)
        for rows in self._blocks(pairs):
            logits[rows] = self._denoiser.to_logits(self._denoiser.norm(state[rows]))
        return logits[pairs].float()

    def _embedded(self, noise_level: Tensor) -> Tensor:
        """(B * S,) -> (B * S, H)"""
        embedded = noise_level.new_empty(len(noise_level), self._hidden, dtype=self._encoded.residues.dtype)
        for rows in self._blocks(torch.arange(len(noise_level), device=noise_level.device)):
            embedded[rows] = self._denoiser.embed_noise(noise_level[rows])
        return embedded

    def _apply(
        self, layer: ResidueUpdate, edges: Tensor, state: Tensor, sources: Tensor, targets: Tensor, sequences: int
    ) -> Tensor:
        """One `ResidueUpdate` at the rows `targets`, given the state at the rows `sources`."""
        message = layer.message
        as_neighbour, as_residue = torch.zeros_like(state), torch.zeros_like(state)
        for rows in self._blocks(sources):
            normed = layer.message_norm(state[rows])
            as_neighbour[rows] = message.from_neighbour(normed)
            as_residue[rows] = message.from_residue(normed)
        updated = torch.zeros_like(state)
        count, width = self._block, edges.shape[1]
        first = edges.new_empty(count, width, self._hidden)
        gathered, second = first.new_empty(count * width, self._hidden), first.new_empty(count * width, self._hidden)
        transposed, bias = message.second.weight.T, message.second.bias
        filled = self._filled_up(targets)
        residues, neighbours = filled // sequences, self._neighbour_pairs(filled, sequences)
        for rows, residue, neighbour in zip(
            filled.split(count), residues.split(count), neighbours.split(count), strict=True
        ):
            torch.index_select(edges, 0, residue, out=first)
            torch.index_select(as_neighbour, 0, neighbour.flatten(), out=gathered)
            first.add_(gathered.view_as(first)).add_(as_residue[rows][:, None])
            torch.addmm(bias, functional.gelu(first).view_as(second), transposed, out=second)
            messages = torch.bmm(self._weights[residue], functional.gelu(second).view_as(first))[:, 0]
            after = state[rows] + layer.message_out(messages)
            updated[rows] = after + layer.feed_forward(after)
        return updated

    def _projected_edges(self, layer: ResidueUpdate) -> Tensor:
        """(N, K, H), the share of the edges in the first layer of each message."""
        edges = self._encoded.edges
        projected = torch.empty_like(edges)
        every = torch.arange(len(edges), device=edges.device)
        for rows in self._blocks(every):
            projected[rows] = layer.message.from_edge(edges[rows])
        return projected

    def _neighbour_pairs(self, pairs: Tensor, sequences: int) -> Tensor:
        return self._encoded.neighbours[pairs // sequences] * sequences + (pairs % sequences)[:, None]

    def _with_neighbours(self, pairs: Tensor, sequences: int, total: int) -> Tensor:
        """Those pairs and all that send messages to them, ascending."""
        if len(pairs) == total:
            return pairs
        reached = torch.zeros(total, dtype=torch.bool, device=pairs.device)
        reached[pairs] = True
        reached[self._neighbour_pairs(pairs, sequences).flatten()] = True
        return reached.nonzero()[:, 0]

    def _blocks(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Rows in blocks of one size."""
        return self._filled_up(rows).split(self._block)

    def _filled_up(self, rows: Tensor) -> Tensor:
        """Rows, the last one repeated up to whole blocks; to compute a row twice changes nothing."""
        return torch.cat([rows, rows[-1:].expand(-len(rows) % self._block)])
