"""The denoiser of sampling and scoring gives what the one of training gives, wherever it is asked."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from protein_model.model.decoding import SequenceDecoder
from tests.model.random_inputs import random_backbones, random_model


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    sequences=st.integers(1, 4),
    layers=st.integers(1, 3),
    neighbours=st.integers(1, 12),
    seed=st.integers(0, 1000),
)
def test_equal_to_the_denoiser_of_training(lengths, sequences, layers, neighbours, seed):
    model = random_model(seed, num_decoder_layers=layers, num_neighbors=neighbours)
    total = sum(lengths)
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 21, (total, sequences), generator=generator)
    level = torch.rand(len(lengths), sequences, generator=generator)
    wanted = (torch.rand(total * sequences, generator=generator) < 0.3).nonzero()[:, 0]
    with torch.no_grad():
        encoded = model.encode(**random_backbones(lengths, seed))
        expected = model.decode(encoded, tokens.T, level.T).transpose(0, 1).flatten(0, 1)
        decoder = SequenceDecoder(model.decoder, encoded)
        torch.testing.assert_close(decoder.logits(tokens, level), expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(decoder.logits(tokens, level, wanted), expected[wanted], atol=1e-4, rtol=1e-4)


@pytest.fixture
def threads(request):
    """Has torch compute with this number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize(("hidden_dim", "threads"), [(32, 1), (32, 2), (256, 3)], indirect=["threads"])
def test_bitwise_the_same_wherever_and_with_whatever_else(hidden_dim, threads):
    """What a residue gets depends neither on the other structures and sequences nor on where else logits are wanted.

    Several threads share one product of 1,024 terms, as a model of width 256 has it, if there is nothing else to do.
    """
    model = random_model(3, hidden_dim=hidden_dim, num_neighbors=16, num_decoder_layers=3)
    alone, other = random_backbones([57], 1), random_backbones([23], 2)
    tokens = torch.randint(0, 21, (57, 6), generator=torch.Generator().manual_seed(0))
    level = torch.rand(1, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        encoded, encoded_other = model.encode(**alone), model.encode(**other)
        expected = SequenceDecoder(model.decoder, encoded).logits(tokens, level).view(57, 6, 20)
        for first, last in ((0, 1), (2, 3), (1, 6)):
            decoder = SequenceDecoder(model.decoder, encoded)
            some = decoder.logits(tokens[:, first:last], level[:, first:last]).view(57, last - first, 20)
            assert torch.equal(some, expected[:, first:last])
        for pairs in (torch.tensor([4]), torch.tensor([4, 100, 101, 340])):
            decoder = SequenceDecoder(model.decoder, encoded)
            assert torch.equal(decoder.logits(tokens, level, pairs), expected.flatten(0, 1)[pairs])
        joined = type(encoded)(
            residues=torch.cat([encoded_other.residues, encoded.residues]),
            edges=torch.cat([encoded_other.edges, encoded.edges]),
            neighbours=torch.cat([encoded_other.neighbours, encoded.neighbours + 23]),
            present=torch.cat([encoded_other.present, encoded.present]),
            structure_index=torch.cat([encoded_other.structure_index, encoded.structure_index + 1]),
        )
        both = SequenceDecoder(model.decoder, joined).logits(
            torch.cat([tokens[:23], tokens]), torch.cat([level, level])
        )
        assert torch.equal(both.view(80, 6, 20)[23:], expected)


def test_nothing_wanted():
    model = random_model(0)
    with torch.no_grad():
        decoder = SequenceDecoder(model.decoder, model.encode(**random_backbones([4], 0)))
        empty = decoder.logits(torch.full((4, 2), 20), torch.ones(1, 2), torch.zeros(0, dtype=torch.int64))
    assert empty.shape == (0, 20)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_do_not_matter(threads):
    model = random_model(5, hidden_dim=32, num_neighbors=16)
    tokens = torch.randint(0, 21, (70, 3), generator=torch.Generator().manual_seed(0))
    before = torch.get_num_threads()
    results = []
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            with torch.no_grad():
                encoded = model.encode(**random_backbones([70], 1))
                results.append(SequenceDecoder(model.decoder, encoded).logits(tokens, torch.rand(1, 3) * 0 + 0.5))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=1e-5)
