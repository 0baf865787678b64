"""Batches that are filled up to one shape for compiled layers give what they give without."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from protein_model.training.substitution import blosum62_transition_matrix

from .random_inputs import random_backbones, random_model

KERNELS = {
    "one pass": {"use_discrete_diffusion": False},
    "absorbing": {},
    "uniform": {"diffusion_kernel": "uniform"},
    "substitution": {"diffusion_kernel": "substitution", "substitution_matrix": blosum62_transition_matrix()},
}


@pytest.mark.parametrize("kernel", KERNELS)
@settings(max_examples=12, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    filler=st.integers(0, 40),
    recompute=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_filling_changes_neither_loss_nor_gradients(kernel, lengths, filler, recompute, seed):
    """To the rounding of the geometry, which is float32; all else is float64 here."""
    model = random_model(seed, dropout=0.0, num_encoder_layers=2, **KERNELS[kernel]).double().train()
    backbones = random_backbones(lengths, seed)
    total = sum(lengths)
    labels, level = torch.randint(0, 20, (total,)), torch.rand(len(lengths))
    tokens = torch.where(torch.rand(total) < 0.5, labels, 20)
    model.encoder.recompute = recompute

    def results(filled_to: int | None) -> list[torch.Tensor]:
        model.encoder.filled_to = filled_to
        model.zero_grad()
        logits = model(**backbones, tokens=tokens, noise_level=level).logits
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        loss.backward()
        return [loss.detach(), logits.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]

    expected, found = results(None), results(total + filler)
    assert len(expected) == len(found)
    for one, other in zip(expected, found, strict=True):
        if filler:
            torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6 * float(one.abs().max() + 1))
        else:
            assert torch.equal(one, other)


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    filler=st.integers(1, 40),
    neighbours=st.integers(1, 12),
    seed=st.integers(0, 1000),
)
@torch.no_grad()
def test_residues_of_no_structure_are_nobodys_neighbours(lengths, filler, neighbours, seed):
    model = random_model(seed, num_neighbors=neighbours)
    backbones = random_backbones(lengths, seed)
    total = sum(lengths)
    expected = model.encode(**backbones)
    model.encoder.filled_to = total + filler
    found = model.encode(**backbones)
    assert torch.equal(found.neighbours[:total], expected.neighbours)
    assert torch.equal(found.present[:total], expected.present)
    own = torch.arange(total, total + filler)[:, None].expand(-1, neighbours)
    assert torch.equal(found.neighbours[total:], own)
    assert not found.present[total:].any()
    # Several sequences over the same backbones, as in sampling.
    tokens, level = torch.randint(0, 21, (3, total)), torch.rand(3, len(lengths))
    torch.testing.assert_close(model.decode(found, tokens, level), model.decode(expected, tokens, level))
