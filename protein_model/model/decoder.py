"""A partly corrupted residue sequence, seen with its encoded backbone -> logits of the clean one."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from .configuration import RESIDUE_LETTERS, ProteinModelConfig
from .encoder import EncodedBackbone
from .layers import ResidueUpdate

NUM_TOKENS = len(RESIDUE_LETTERS)
NUM_RESIDUE_TYPES = NUM_TOKENS - 1


class NoiseLevelEmbedding(nn.Module):
    """Embeds how corrupted a sequence is, a number from 0 (clean) to 1 (nothing left)."""

    def __init__(self, hidden_dim: int, num_frequencies: int = 16):
        super().__init__()
        self.num_frequencies = num_frequencies
        self.first = nn.Linear(2 * num_frequencies, hidden_dim)
        self.second = nn.Linear(hidden_dim, hidden_dim)

    def waves(self, noise_level: Tensor) -> Tensor:
        """noise_level (..., B) -> (..., B, 2 * num_frequencies)"""
        frequencies = math.pi * torch.arange(1, self.num_frequencies + 1, device=noise_level.device)
        angles = noise_level[..., None].float() * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1).to(self.first.weight.dtype)

    def forward(self, noise_level: Tensor) -> Tensor:
        """noise_level (..., B) -> (..., B, H)"""
        return self.second(functional.gelu(self.first(self.waves(noise_level))))


class SequenceDenoiser(nn.Module):
    """Message passing on the encoder's graph over encoder output, residue tokens and, where it matters, noise level.

    With the absorbing kernel the noise level is not an input: what is corrupted can be seen, and the best prediction
    depends on nothing else (Ou et al. 2024, "Your absorbing discrete diffusion secretly models the conditional
    distributions of clean data"). So a prediction changes only where a token near it has changed, which `decoding`
    makes use of.
    """

    def __init__(self, config: ProteinModelConfig):
        super().__init__()
        hidden = config.hidden_dim
        self.embed_tokens = nn.Embedding(NUM_TOKENS, hidden)
        noise_matters = config.use_discrete_diffusion and config.diffusion_kernel != "absorbing"
        self.embed_noise = NoiseLevelEmbedding(hidden) if noise_matters else None
        self.layers = nn.ModuleList(
            ResidueUpdate(hidden, config.num_neighbors, config.dropout) for _ in range(config.num_decoder_layers)
        )
        self.norm = nn.LayerNorm(hidden)
        self.to_logits = nn.Linear(hidden, NUM_RESIDUE_TYPES)

    def forward(self, encoded: EncodedBackbone, tokens: Tensor, noise_level: Tensor) -> Tensor:
        """Predict the clean sequence.

        Parameters
        ----------
        encoded : N residues of B structures
        tokens : (..., N) int64, 0 to 20; leading dimensions are samples over the same backbones
        noise_level : (..., B), 0 to 1; not used with the absorbing kernel

        Returns
        -------
        (..., N, 20) logits
        """
        count = tokens.shape[-1]
        filler = len(encoded.residues) - count  # see `BackboneEncoder.filled_to`
        if filler:
            tokens = functional.pad(tokens, (0, filler), value=NUM_RESIDUE_TYPES)
        residues = encoded.residues + self.embed_tokens(tokens)
        if self.embed_noise is not None:
            residues = residues + self.embed_noise(noise_level)[..., encoded.structure_index, :]
        for layer in self.layers:
            residues = layer(residues, encoded.edges, encoded.neighbours, encoded.present)
        return self.to_logits(self.norm(residues[..., :count, :]))
