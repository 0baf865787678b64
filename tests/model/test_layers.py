"""Message passing."""

from __future__ import annotations

import pytest
import torch

from protein_model.model.configuration import ProteinModelConfig
from protein_model.model.encoder import EncoderLayer
from protein_model.model.layers import look_up


@pytest.mark.parametrize("samples", [(), (3,), (2, 3)])
def test_look_up_is_an_index(samples):
    """It finds what an index finds, for any number of samples, and its gradients are those of an index."""
    generator = torch.Generator().manual_seed(0)
    residues = torch.randn(*samples, 7, 4, generator=generator, requires_grad=True)
    neighbours = torch.randint(0, 7, (7, 5), generator=generator)
    found, expected = look_up(residues, neighbours), residues[..., neighbours, :]
    assert torch.equal(found, expected)
    weights = torch.randn(found.shape, generator=generator)
    (gradient,) = torch.autograd.grad(found, residues, weights)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, residues, weights)[0])


def test_edges_of_a_residue_lose_the_same_channels():
    torch.manual_seed(0)
    layer = EncoderLayer(ProteinModelConfig(hidden_dim=16, num_neighbors=5, dropout=0.5)).train()
    residues, edges = torch.randn(40, 16), torch.randn(40, 5, 16)
    neighbours, present = torch.randint(0, 40, (40, 5)), torch.ones(40, 5, dtype=torch.bool)
    lost = layer(residues, edges, neighbours, present)[1] == edges
    assert torch.equal(lost, lost[:, :1].expand_as(lost))
    assert 0.4 < lost.float().mean() < 0.6
    assert len(lost[:, 0].unique(dim=0)) == 40  # each residue other ones
    kept = layer.eval()(residues, edges, neighbours, present)[1] != edges
    assert kept.all()
