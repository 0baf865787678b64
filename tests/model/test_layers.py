"""Message passing."""

from __future__ import annotations

import pytest
import torch

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
