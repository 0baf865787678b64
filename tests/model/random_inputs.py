"""Small models with random weights, and backbones that look like none, for tests of the network."""

from __future__ import annotations

import torch

from protein_model.model.configuration import ProteinModelConfig
from protein_model.model.modeling import ProteinModel


def random_model(seed: int, **changes) -> ProteinModel:
    torch.manual_seed(seed)
    settings = {"hidden_dim": 16, "num_encoder_layers": 1, "num_decoder_layers": 2, "num_neighbors": 5}
    settings |= {"use_discrete_diffusion": True}
    model = ProteinModel(ProteinModelConfig(**(settings | changes))).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def random_backbones(lengths: list[int], seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    total = sum(lengths)
    ca = torch.randn(total, 1, 3, generator=generator).cumsum(0) * 2
    return {
        "backbone": ca + torch.randn(total, 4, 3, generator=generator),
        "backbone_mask": torch.rand(total, generator=generator) < 0.9,
        "structure_index": torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)),
        "chain_index": torch.zeros(total, dtype=torch.int64),
        "position": torch.cat([torch.arange(length) for length in lengths]),
    }
