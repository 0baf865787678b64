"""Message passing on the neighbour graph, shared by encoder and decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def look_up(residues: Tensor, neighbours: Tensor) -> Tensor:
    """residues (..., N, H), neighbours (N, K) -> what is known of each neighbour, (..., N, K, H)"""
    # As an embedding this is twice as fast as as an index on a CPU, forward and backward, and on a GPU, too, its
    # gradients are summed in an order that does not change from run to run.
    rows = residues.movedim(-2, 0)
    found = functional.embedding(neighbours, rows.flatten(1)).unflatten(-1, rows.shape[1:])
    return found.movedim((0, 1), (-3, -2))


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
        # In place: there are many edges, and memory is what it takes.
        first = look_up(self.from_neighbour(residues), neighbours)
        return first.add_(self.from_residue(residues).unsqueeze(-2)).add_(self.from_edge(edges))


class ResidueUpdate(nn.Module):
    """Messages from the neighbours, then a feed-forward block, each added to the residue embedding.

    A message is a perceptron of (residue, neighbour, edge) with one hidden layer. Its last linear map commutes with the
    sum over the neighbours, so it is applied once per residue: of matrix products, one per edge is left.
    """

    def __init__(self, hidden_dim: int, num_neighbors: int, dropout: float):
        super().__init__()
        self.num_neighbors = num_neighbors
        self.message_norm = nn.LayerNorm(hidden_dim)
        self.message = PairSum(hidden_dim)
        self.message_out = nn.Linear(hidden_dim, hidden_dim)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(hidden_dim),
            nn.Linear(hidden_dim, 4 * hidden_dim),
            nn.GELU(),
            nn.Linear(4 * hidden_dim, hidden_dim),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, residues: Tensor, edges: Tensor, neighbours: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Update the residues.

        Parameters
        ----------
        residues : (..., N, H)
        edges : (N, K, H)
        neighbours : (N, K)
        present : (N, K) bool

        Returns
        -------
        residues : (..., N, H)
        messages : (..., N, K, H), the hidden layer of every message
        """
        messages = functional.gelu(self.message(self.message_norm(residues), edges, neighbours))
        weights = present.to(messages.dtype) / self.num_neighbors
        gathered = torch.einsum("...nkh,nk->...nh", messages, weights)
        residues = residues + self.dropout(self.message_out(gathered))
        return residues + self.dropout(self.feed_forward(residues)), messages
