"""Backbone geometry -> embeddings of residues and of the edges between neighbours. It never sees a residue type."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from .configuration import ProteinModelConfig

# Names, not the module: Transformers finds the files that a model from the Hub needs by imports of this form only.
from .features import (
    ANGLE_FEATURES,
    FRAME_FEATURES,
    NUM_ATOMS,
    backbone_angles,
    bonded_to_next,
    edge_distances,
    edge_frames,
    neighbour_graph,
    radial_bases,
    relative_positions,
)
from .layers import ResidueUpdate


@dataclass
class EncodedBackbone:
    """What the decoder needs of a structure; made once, used for every denoising step and every sample.

    Where the encoder fills batches up, all of these have so many rows, and those after the residues mean nothing.

    Attributes
    ----------
    residues : (N, H)
    edges : (N, K, H)
    neighbours : (N, K) int64, rows
    present : (N, K) bool
    structure_index : (N,) int64
    """

    residues: Tensor
    edges: Tensor
    neighbours: Tensor
    present: Tensor
    structure_index: Tensor


class BackboneGeometry(nn.Module):
    """What the encoder is told of a backbone and its graph. Nothing here is learned."""

    def __init__(self, config: ProteinModelConfig):
        super().__init__()
        self.num_radial_bases = config.num_radial_bases
        self.max_relative_position = config.max_relative_position

    def forward(
        self,
        backbone: Tensor,
        backbone_mask: Tensor,
        structure_index: Tensor,
        chain_index: Tensor,
        position: Tensor,
        neighbours: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As `BackboneEncoder.forward`, neighbours (N, K) -> angles, and for edges radial bases, frames, offsets."""
        bonded = bonded_to_next(backbone_mask, structure_index, chain_index, position)
        angles = backbone_angles(backbone, bonded) * backbone_mask[:, None]
        distances = edge_distances(backbone, neighbours)
        radial = radial_bases(distances, self.num_radial_bases).flatten(2)
        frames = edge_frames(backbone, neighbours)
        offsets = relative_positions(position, chain_index, neighbours, self.max_relative_position)
        return angles, radial, frames, offsets


class EncoderLayer(nn.Module):
    """One perceptron per edge, of the edge and its two residues, tells both the residue and the edge what to change.

    A perceptron of its own for the edges, of residues that are up to date already, made a step of training take half as
    long again, for the same loss at equal steps.
    """

    def __init__(self, config: ProteinModelConfig):
        super().__init__()
        self.edge_norm = nn.LayerNorm(config.hidden_dim)
        self.residue_update = ResidueUpdate(config.hidden_dim, config.num_neighbors, config.dropout)
        self.edge_out = nn.Linear(config.hidden_dim, config.hidden_dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, residues: Tensor, edges: Tensor, neighbours: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """residues (N, H), edges (N, K, H), neighbours (N, K), present (N, K) -> residues (N, H), edges (N, K, H)"""
        residues, messages = self.residue_update(residues, self.edge_norm(edges), neighbours, present)
        change = self.dropout(self.edge_out(messages))
        # In place where that costs no precision: in 16 bits, the sum over the layers is kept in 32.
        return residues, change.add_(edges) if change.dtype == edges.dtype else edges + change


class BackboneEncoder(nn.Module):
    """Message passing on the graph of nearest residues, invariant to rotation and translation.

    Attributes
    ----------
    recompute : keep only what goes into each layer in training, and compute the rest again in the backward pass
    filled_to : compiled layers want every batch to have one shape: residues of no structure, which send and receive no
        messages, are added up to so many; None to add none
    """

    def __init__(self, config: ProteinModelConfig):
        super().__init__()
        self.recompute = False
        self.filled_to: int | None = None
        self.num_neighbors = config.num_neighbors
        self.geometry = BackboneGeometry(config)
        hidden = config.hidden_dim
        distance_features = NUM_ATOMS**2 * config.num_radial_bases
        self.embed_distances = nn.Linear(distance_features, hidden)
        self.embed_frames = nn.Linear(FRAME_FEATURES, hidden, bias=False)
        self.embed_offset = nn.Embedding(2 * config.max_relative_position + 2, hidden)
        self.edge_norm = nn.LayerNorm(hidden)
        self.embed_angles = nn.Linear(ANGLE_FEATURES, hidden)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_encoder_layers))
        self.residue_norm = nn.LayerNorm(hidden)
        self.final_edge_norm = nn.LayerNorm(hidden)

    def forward(
        self, backbone: Tensor, backbone_mask: Tensor, structure_index: Tensor, chain_index: Tensor, position: Tensor
    ) -> EncodedBackbone:
        """Encode a flat batch.

        Parameters
        ----------
        backbone : (N, 4, 3) angstrom, N CA C O
        backbone_mask : (N,) bool, all four atoms are present; other residues send and receive no messages
        structure_index : (N,) int64, non-decreasing from 0
        chain_index : (N,) int64, residues of one structure with equal numbers share a chain
        position : (N,) int64, index along the chain that jumps where residues are missing
        """
        with torch.no_grad(), torch.autocast(backbone.device.type, enabled=False):
            backbone = backbone.float()
            neighbours, present = neighbour_graph(backbone[:, 1], backbone_mask, structure_index, self.num_neighbors)
            # Only now: shapes within the graph depend on the structures anyway, so that it is never compiled.
            filler = (self.filled_to or len(backbone)) - len(backbone)
            if filler > 0:
                own = torch.arange(len(backbone), len(backbone) + filler, device=backbone.device)
                neighbours = torch.cat([neighbours, own[:, None].expand(-1, self.num_neighbors)])
                present, backbone, backbone_mask, structure_index, chain_index, position = (
                    functional.pad(rows, (0, 0) * (rows.ndim - 1) + (0, filler))
                    for rows in (present, backbone, backbone_mask, structure_index, chain_index, position)
                )
            angles, radial, frames, offsets = self.geometry(
                backbone, backbone_mask, structure_index, chain_index, position, neighbours
            )
        dtype = self.embed_distances.weight.dtype
        edges = self.embed_distances(radial.to(dtype)).add_(self.embed_frames(frames.to(dtype)))
        edges = self.edge_norm(edges.add_(self.embed_offset(offsets)))
        residues = self.embed_angles(angles.to(dtype))
        for layer in self.layers:
            if self.recompute and torch.is_grad_enabled():
                # It takes the same random numbers the second time, so that results are the same to the last bit.
                residues, edges = checkpoint(layer, residues, edges, neighbours, present, use_reentrant=False)
            else:
                residues, edges = layer(residues, edges, neighbours, present)
        return EncodedBackbone(
            self.residue_norm(residues), self.final_edge_norm(edges), neighbours, present, structure_index
        )
