"""What a decoder remembers changes nothing but the time that it takes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from protein_model.model import incremental
from protein_model.model.decoding import SequenceDecoder
from protein_model.model.incremental import IncrementalDecoder, sampling_decoder
from tests.model.random_inputs import random_backbones, random_model

NO_NOISE = torch.zeros(0, 0)  # models with the absorbing kernel do not look at it


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=3),
    sequences=st.integers(1, 4),
    neighbours=st.integers(1, 12),
    calls=st.integers(1, 6),
    share=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    seed=st.integers(0, 1000),
)
def test_equal_to_a_decoder_without_memory(lengths, sequences, neighbours, calls, share, seed):
    """Whatever changes from call to call, and wherever logits are wanted."""
    model = random_model(seed, num_decoder_layers=1, num_neighbors=neighbours)
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.full((sum(lengths), sequences), 20)
    with torch.no_grad():
        encoded = model.encode(**random_backbones(lengths, seed))
        remembering = IncrementalDecoder(model.decoder, encoded)
        for _ in range(calls):
            wanted = (torch.rand(tokens.numel(), generator=generator) < 0.5).nonzero()[:, 0]
            expected = SequenceDecoder(model.decoder, encoded).logits(tokens, NO_NOISE, wanted)
            torch.testing.assert_close(remembering.logits(tokens, NO_NOISE, wanted), expected, atol=1e-3, rtol=1e-3)
            changed = torch.rand(tokens.shape, generator=generator) < share
            tokens = torch.where(changed, torch.randint(0, 21, tokens.shape, generator=generator), tokens)


def unmasked_one_by_one(decoder: SequenceDecoder, total: int, order: torch.Tensor) -> torch.Tensor:
    """(steps, S, 20) logits of the residue that is next in each sequence; `order` is (steps, S)."""
    decoder.begin()
    tokens = torch.full((total, order.shape[1]), 20)
    sequence, found = torch.arange(order.shape[1]), []
    for step, residues in enumerate(order):
        masked = (tokens == 20).flatten().nonzero()[:, 0]
        logits = torch.zeros(*tokens.shape, 20).flatten(0, 1)
        logits[masked] = decoder.logits(tokens, NO_NOISE, masked)
        found.append(logits.view(*tokens.shape, 20)[residues, sequence])
        tokens[residues, sequence] = (residues + step) % 20
    return torch.stack(found)


def test_bitwise_the_same_beside_other_sequences():
    """A sequence gets the same logits alone, beside others, and after others that were sampled before."""
    model = random_model(3, hidden_dim=32, num_neighbors=16, num_decoder_layers=1)
    generator = torch.Generator().manual_seed(0)
    order = torch.stack([torch.randperm(40, generator=generator) for _ in range(5)], dim=1)
    with torch.no_grad():
        encoded = model.encode(**random_backbones([40], 1))
        decoder = IncrementalDecoder(model.decoder, encoded)
        together = unmasked_one_by_one(decoder, 40, order)
        for first, last in ((0, 1), (3, 4), (1, 4), (0, 5)):
            some = unmasked_one_by_one(decoder, 40, order[:, first:last])
            assert torch.equal(some, together[:, first:last])


def test_few_messages_are_computed(monkeypatch):
    """Unmasking one by one costs two messages per edge and the first one, not one per edge and step."""
    model = random_model(4, num_neighbors=8, num_decoder_layers=1)
    rows = []
    whole = SequenceDecoder._messages

    def counted(first):
        rows.append(first.shape[:-1].numel())
        return whole(first)

    monkeypatch.setattr(IncrementalDecoder, "_messages", staticmethod(counted))
    order = torch.randperm(120, generator=torch.Generator().manual_seed(0))[:, None]
    with torch.no_grad():
        decoder = IncrementalDecoder(model.decoder, model.encode(**random_backbones([120], 1)))
        unmasked_one_by_one(decoder, 120, order)
    edges = 120 * 8
    assert edges < sum(rows) < 4 * edges
    assert sum(rows) < 120 * edges / 10


def test_sums_are_in_order_on_all_devices(monkeypatch):
    """What stands in on a GPU for `index_add_` adds the same numbers in the same order."""
    generator = torch.Generator().manual_seed(0)
    receiver = torch.randint(0, 30, (200,), generator=generator).sort().values
    change = torch.randn(200, 16, generator=generator)
    expected, sums = torch.zeros(30, 16), torch.zeros(30, 16)
    incremental._add_in_order(expected, receiver, change)

    class Elsewhere(torch.Tensor):
        device = torch.device("meta")

    incremental._add_in_order(sums.as_subclass(Elsewhere), receiver, change)
    torch.testing.assert_close(sums, expected)


@pytest.mark.parametrize(
    ("changes", "remembers"),
    [
        ({"num_decoder_layers": 1}, True),
        ({"num_decoder_layers": 2}, False),
        ({"num_decoder_layers": 1, "diffusion_kernel": "uniform"}, False),
        ({"num_decoder_layers": 1, "use_discrete_diffusion": False}, True),
    ],
)
def test_memory_where_it_is_right(changes, remembers):
    model = random_model(0, **changes)
    with torch.no_grad():
        decoder = sampling_decoder(model.decoder, model.encode(**random_backbones([5], 0)))
    assert isinstance(decoder, IncrementalDecoder) == remembers
