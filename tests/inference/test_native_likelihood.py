"""Likelihoods of native sequences against exact enumeration, and what the model is shown on the way."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch

from protein_model.inference import sampling
from protein_model.inference.blinding import blinded
from protein_model.inference.inputs import backbone_batch
from protein_model.inference.metrics import scored_residues
from protein_model.inference.native_likelihood import (
    BackboneReader,
    order_agnostic_masks,
    order_agnostic_nll,
    order_agnostic_residue_nll,
    random_masks,
    stepwise_likelihoods,
    stepwise_masks,
    stepwise_nll,
    stepwise_shares,
)
from tests.inference.evaluation_cases import example, small_structures, stretch, tiny_model, with_sequence

CPU = torch.device("cpu")


def encode(model, structure):
    batch = backbone_batch([blinded(structure)], CPU)
    with torch.no_grad():
        return batch.encode(model)


def subset_nll(model, structure, masked: tuple[int, ...]) -> float:
    """Nats of the masked residues, given the others, one structure and one mask at a time."""
    encoded = encode(model, structure)
    tokens = torch.from_numpy(structure.residue_type.astype(np.int64))
    tokens[~torch.from_numpy(scored_residues(structure))] = 20
    tokens[list(masked)] = 20
    level = torch.tensor([len(masked) / scored_residues(structure).sum()], dtype=torch.float32)
    with torch.no_grad():
        log_probability = model.decode(encoded, tokens, level).log_softmax(-1)
    return -sum(float(log_probability[row, structure.residue_type[row]]) for row in masked)


def mean_subset_nll(model, structure, size: int) -> float:
    """Mean over all subsets of a size of the nats per masked residue."""
    rows = np.flatnonzero(scored_residues(structure)).tolist()
    return float(np.mean([subset_nll(model, structure, subset) / size for subset in combinations(rows, size)]))


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def short():
    """Seven residues of which five are scored."""
    structure = stretch(example("1orc.pdb.gz"), 20, 7)
    types, mask = structure.residue_type.copy(), structure.atom_mask.copy()
    types[2] = 20
    mask[5, 0] = False
    return replace(structure, residue_type=types, atom_mask=mask)


def test_one_shot_is_the_plain_prediction_from_no_sequence(model):
    structures = small_structures()
    for structure, found in zip(structures, BackboneReader(model, structures).one_shot(), strict=True):
        own = encode(model, structure)
        with torch.no_grad():
            logits = model.decode(own, torch.full((len(structure),), 20), torch.ones(1))
        log_probability = logits.log_softmax(-1).numpy()
        for row in range(len(structure)):
            scored = structure.backbone_complete[row] and structure.residue_type[row] != 20
            assert found.masked[0, row] == scored
            if scored:
                assert found.nll[0, row] == pytest.approx(-log_probability[row, structure.residue_type[row]], abs=1e-4)
                assert found.predicted[0, row] == log_probability[row].argmax()
                assert found.confidence[0, row] == pytest.approx(math.exp(log_probability[row].max()), abs=1e-4)
            else:
                assert (found.nll[0, row], found.predicted[0, row], found.confidence[0, row]) == (0, 20, 0)


def test_masked_residues_are_not_shown(model):
    """Another native type behind a mask changes nothing but which probability is looked up."""
    structure = small_structures()[1]
    mask = order_agnostic_masks(structure, 4, seed=0)
    hidden_in_all = mask.all(axis=0)
    assert hidden_in_all.any()
    other = with_sequence(structure, 5)
    types = np.where(hidden_in_all, other.residue_type, structure.residue_type)
    changed = replace(structure, residue_type=types)
    reader = BackboneReader(model, [structure])
    [one] = reader.masked([mask])
    [two] = BackboneReader(model, [changed]).masked([mask])
    assert np.array_equal(one.confidence, two.confidence) and np.array_equal(one.predicted, two.predicted)
    assert not np.array_equal(one.nll, two.nll)
    # And what is shown does matter.
    [three] = BackboneReader(model, [other]).masked([mask])
    assert not np.allclose(one.confidence, three.confidence)


def test_masked_predictions_are_those_of_one_mask_at_a_time(model, monkeypatch):
    structures = small_structures()
    masks = [order_agnostic_masks(structure, 5, seed=3) for structure in structures]
    reader = BackboneReader(model, structures)
    together = reader.masked(masks)
    monkeypatch.setattr(sampling, "MAX_PAIRS", {"cpu": 2 * sum(map(len, structures))})
    apart = reader.masked(masks)
    for structure, mask, found, other in zip(structures, masks, together, apart, strict=True):
        assert np.array_equal(found.nll, other.nll) and np.array_equal(found.confidence, other.confidence)
        for draw in range(5):
            expected = subset_nll(model, structure, tuple(np.flatnonzero(mask[draw])))
            assert found.nll[draw].sum() == pytest.approx(expected, rel=1e-4)
            assert found.mean_nll[draw] == pytest.approx(expected / mask[draw].sum(), rel=1e-4)
            assert found.share[draw] == pytest.approx(mask[draw].sum() / scored_residues(structure).sum())


def test_numbers_of_masked_residues_are_stratified_and_uniform(short):
    structure = small_structures()[1]
    scored = int(scored_residues(structure).sum())
    counts = order_agnostic_masks(structure, 8, seed=0).sum(axis=1)
    for draw, count in enumerate(counts):
        assert math.floor(draw / 8 * scored) + 1 <= count <= math.floor((draw + 1) / 8 * scored) + 1
    many = np.concatenate([order_agnostic_masks(short, 3, seed).sum(axis=1) for seed in range(1000)])
    assert np.bincount(many, minlength=6)[1:] == pytest.approx(np.full(5, 600), abs=90)
    assert not order_agnostic_masks(short, 50, 1)[:, ~scored_residues(short)].any()


def test_masks_are_all_subsets_alike(short):
    rows = np.flatnonzero(scored_residues(short))
    masks = random_masks(short, [2] * 3000, seed=0, purpose="test")
    found = {tuple(np.flatnonzero(mask)) for mask in masks}
    assert found == set(combinations(rows.tolist(), 2))
    assert masks[:, rows].sum(axis=0) == pytest.approx(np.full(5, 1200), abs=130)


def test_the_order_agnostic_likelihood_is_that_of_all_orders(model, short):
    exact = sum(mean_subset_nll(model, short, size) for size in range(1, 6))
    reader = BackboneReader(model, [short])
    masks = order_agnostic_masks(short, 4000, seed=0)
    [found] = reader.masked([masks])
    estimate, error = order_agnostic_nll(found)
    assert error < 0.2
    assert estimate == pytest.approx(exact, abs=4 * error)
    assert order_agnostic_residue_nll(found).sum() == pytest.approx(estimate, rel=1e-5)


def test_the_monte_carlo_error_is_the_spread_of_the_estimates(model):
    structure = small_structures()[2]
    reader = BackboneReader(model, [structure])
    estimates, errors = [], []
    for seed in range(60):
        masks = [order_agnostic_masks(structure, 8, seed)]
        [found] = reader.masked(masks)
        estimate, error = order_agnostic_nll(found)
        estimates.append(estimate)
        errors.append(error)
    assert np.mean(np.square(errors)) == pytest.approx(np.var(estimates), rel=0.5)
    [single] = reader.masked([order_agnostic_masks(structure, 1, 0)])
    assert math.isnan(order_agnostic_nll(single)[1])


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 9])
def test_the_stepwise_likelihood_is_that_of_all_ways_to_decode_in_so_many_steps(model, short, steps):
    """Exactly, by masks of every size one after another; a group's residues are any of those still masked."""
    sizes = [math.ceil(Fraction(left, steps) * 5) for left in range(steps, -1, -1)]
    exact = sum(
        (before - after) * mean_subset_nll(model, short, before) for before, after in pairwise(sizes) if before > after
    )
    shares = stepwise_shares([steps, 4])
    reader = BackboneReader(model, [short])
    masks = [stepwise_masks(short, shares, seed) for seed in range(400)]
    [found] = reader.masked([np.concatenate(masks)])
    parts = [
        replace(found, masked=found.masked[rows], nll=found.nll[rows])
        for rows in np.split(np.arange(len(found.masked)), 400)
    ]
    estimates = [stepwise_nll(part, shares, steps) for part in parts]
    assert np.mean(estimates) == pytest.approx(exact, abs=4 * np.std(estimates) / 20 + 1e-4)


def test_one_step_is_one_shot_and_many_steps_are_any_order(model):
    structures = small_structures()
    reader = BackboneReader(model, structures)
    one, many = stepwise_likelihoods(reader, [1, 200], seed=0)
    one_shot = reader.one_shot()
    assert one == pytest.approx([found.nll.sum() for found in one_shot], rel=1e-4)
    masks = [order_agnostic_masks(structure, 60, 0) for structure in structures]
    ordered = reader.masked(masks)
    for value, found in zip(many, ordered, strict=True):
        estimate, error = order_agnostic_nll(found)
        assert value == pytest.approx(estimate, abs=5 * error)


def test_a_structure_without_a_scored_residue_costs_nothing(model, short):
    unknown = replace(short, residue_type=np.full(len(short), 20, np.int8))
    reader = BackboneReader(model, [unknown, short])
    [found, _] = reader.one_shot()
    assert found.scored == 0 and found.nll.sum() == 0 and np.isfinite(found.nll).all()
    assert stepwise_likelihoods(reader, [1, 4], seed=0)[:, 0].tolist() == [0.0, 0.0]
