"""Message passing on the neighbour graph, shared by encoder and decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class PairMLP(nn.Module):
    """Two-layer perceptron of (residue, neighbour, edge), without the last linear map.

    The first layer of a perceptron on concatenated inputs is a sum of three linear maps. Those of the residue and of
    the neighbour are applied once per residue instead of once per edge, which leaves two products per edge instead of
    four.
    """

    def __init__(self, hidden_dim: int):
        super().__init__()
        self.from_residue = nn.Linear(hidden_dim, hidden_dim)
        self.from_neighbour = nn.Linear(hidden_dim, hidden_dim, bias=False)
        self.from_edge = nn.Linear(hidden_dim, hidden_dim, bias=False)
        self.second = nn.Linear(hidden_dim, hidden_dim)

    def forward(self, residues: Tensor, edges: Tensor, neighbours: Tensor) -> Tensor:
        """residues (..., N, H), edges (N, K, H), neighbours (N, K) -> (..., N, K, H)"""
        first = self.from_residue(residues).unsqueeze(-2) + self.from_edge(edges)
        first = first + self.from_neighbour(residues)[..., neighbours, :]
        return functional.gelu(self.second(functional.gelu(first)))


class ResidueUpdate(nn.Module):
    """Messages from the neighbours, then a feed-forward block, each added to the residue embedding."""

    def __init__(self, hidden_dim: int, num_neighbors: int, dropout: float):
        super().__init__()
        self.num_neighbors = num_neighbors
        self.message_norm = nn.LayerNorm(hidden_dim)
        self.message = PairMLP(hidden_dim)
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
        messages = self.message(self.message_norm(residues), edges, neighbours)
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
        self.edge_norm = nn.LayerNorm(hidden_dim)
        self.pair = PairMLP(hidden_dim)
        self.out = nn.Linear(hidden_dim, hidden_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, residues: Tensor, edges: Tensor, neighbours: Tensor) -> Tensor:
        """residues (N, H), edges (N, K, H), neighbours (N, K) -> (N, K, H)"""
        update = self.out(self.pair(self.residue_norm(residues), self.edge_norm(edges), neighbours))
        return edges + self.dropout(update)
