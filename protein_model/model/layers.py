"""Message passing on the neighbour graph, shared by encoder and decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class PairSum(nn.Module):
    """First linear map of a perceptron of (residue, neighbour, edge).

    On concatenated inputs it would be one map of three times the width. As a sum of three, those of the residue and of
    the neighbour are applied once per residue instead of once per edge, which leaves one product per edge of three.
    """

    def __init__(self, hidden_dim: int):
        super().__init__()
        self.from_residue = nn.Linear(hidden_dim, hidden_dim)
        self.from_neighbour = nn.Linear(hidden_dim, hidden_dim, bias=False)
        self.from_edge = nn.Linear(hidden_dim, hidden_dim, bias=False)

    def forward(self, residues: Tensor, edges: Tensor, neighbours: Tensor) -> Tensor:
        """residues (..., N, H), edges (N, K, H), neighbours (N, K) -> (..., N, K, H)"""
        first = self.from_residue(residues).unsqueeze(-2) + self.from_edge(edges)
        return first + self.from_neighbour(residues)[..., neighbours, :]


class ResidueUpdate(nn.Module):
    """Messages from the neighbours, then a feed-forward block, each added to the residue embedding."""

    def __init__(self, hidden_dim: int, num_neighbors: int, dropout: float):
        super().__init__()
        self.num_neighbors = num_neighbors
        self.message_norm = nn.LayerNorm(hidden_dim)
        self.message = PairSum(hidden_dim)
        self.message_second = nn.Linear(hidden_dim, hidden_dim)
        self.message_out = nn.Linear(hidden_dim, hidden_dim)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(hidden_dim),
            nn.Linear(hidden_dim, 4 * hidden_dim),
            nn.GELU(),
            nn.Linear(4 * hidden_dim, hidden_dim),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, residues: Tensor, edges: Tensor, neighbours: Tensor, present: Tensor) -> Tensor:
        """residues (..., N, H), edges (N, K, H), neighbours (N, K), present (N, K) bool -> (..., N, H)"""
        messages = functional.gelu(self.message(self.message_norm(residues), edges, neighbours))
        messages = functional.gelu(self.message_second(messages))
        # The last linear map of the message commutes with the sum, so it is applied once per residue.
        weights = present.to(messages.dtype) / self.num_neighbors
        gathered = torch.einsum("...nkh,nk->...nh", messages, weights)
        residues = residues + self.dropout(self.message_out(gathered))
        return residues + self.dropout(self.feed_forward(residues))


class EdgeUpdate(nn.Module):
    """Each edge sees the two residues that it joins."""

    def __init__(self, hidden_dim: int, dropout: float):
        super().__init__()
        self.residue_norm = nn.LayerNorm(hidden_dim)
        self.pair = PairSum(hidden_dim)
        self.out = nn.Linear(hidden_dim, hidden_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, residues: Tensor, edges: Tensor, neighbours: Tensor) -> Tensor:
        """residues (N, H), normalised edges (N, K, H), neighbours (N, K) -> what is added to the edges, (N, K, H)"""
        pairs = self.pair(self.residue_norm(residues), edges, neighbours)
        return self.dropout(self.out(functional.gelu(pairs)))
