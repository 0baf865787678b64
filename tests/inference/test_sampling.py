"""Samplers draw from the distribution that they should, and a design does not depend on what is made beside it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from protein_model.inference import sampling
from protein_model.inference.constraints import Constraints, design_plan
from protein_model.inference.inputs import backbone_batch
from protein_model.inference.orders import ORDERS
from protein_model.inference.sampling import Sampler, SamplingError, SamplingSettings, sample_sequences, settings_for
from tests.inference.backbones import made_structure, numbered, symmetric_copies
from tests.inference.evaluation_cases import example, small_structures, tiny_model, with_sequence
from tests.inference.exact import ancestral_distribution, chi_square, one_by_one_distribution

ALL_BUT_THREE = "EFGHIKLMNPQRSTVWY"
DRAWS = 4000


def sampled(model, structure, plan, settings):
    [designs] = Sampler(model, [structure], [plan]).sample(DRAWS, settings)
    return Counter(map(tuple, designs.residue_type.tolist()))


def assert_distributed(counts, expected):
    statistic, freedom = chi_square(counts, expected)
    # Mean `freedom`, variance 2 * freedom; five standard deviations.
    assert freedom >= 8 and statistic < freedom + 5 * math.sqrt(2 * freedom)


@pytest.mark.parametrize(("steps", "temperature"), [(1, 1.0), (2, 0.5), (3, 1.0)])
def test_ancestral_is_the_models_own_distribution(steps, temperature):
    """Absorbing kernel: all 27 sequences of three residues and three types, against every path that leads to them."""
    model, structure = tiny_model(), made_structure({"A": numbered(1, 3)})
    plan = design_plan(structure, Constraints(omit=ALL_BUT_THREE))
    expected = ancestral_distribution(model, structure, plan, steps, temperature)
    settings = SamplingSettings(temperature, steps, "ancestral", seed=steps)
    assert sum(expected.values()) == pytest.approx(1)
    assert_distributed(sampled(model, structure, plan, settings), expected)


@pytest.mark.parametrize("kernel", ["uniform", "substitution"])
def test_kernels_without_a_mask(kernel):
    model, structure = tiny_model(diffusion_kernel=kernel), made_structure({"A": numbered(1, 2)})
    plan = design_plan(structure, Constraints(omit=ALL_BUT_THREE))
    expected = ancestral_distribution(model, structure, plan, 2, 1.0)
    assert len(expected) == 9
    assert_distributed(sampled(model, structure, plan, SamplingSettings(1.0, 2)), expected)


def test_random_order_one_by_one():
    model, structure = tiny_model(), made_structure({"A": numbered(1, 3)})
    plan = design_plan(structure, Constraints(omit=ALL_BUT_THREE))
    expected = one_by_one_distribution(model, structure, plan, 1.0)
    assert_distributed(sampled(model, structure, plan, SamplingSettings(1.0, "L", "random")), expected)


def test_the_checks_above_tell_another_distribution():
    model, structure = tiny_model(), made_structure({"A": numbered(1, 3)})
    plan = design_plan(structure, Constraints(omit=ALL_BUT_THREE))
    expected = ancestral_distribution(model, structure, plan, 2, 1.0)
    with pytest.raises(AssertionError):
        assert_distributed(sampled(model, structure, plan, SamplingSettings(0.7, 2, "ancestral")), expected)


@pytest.mark.parametrize("order", [*ORDERS, None])
@pytest.mark.parametrize("options", [{}, {"diffusion_kernel": "uniform"}, {"use_discrete_diffusion": False}])
def test_company_does_not_matter(order, options, monkeypatch):
    """Same designs, bit for bit: alone, together, in another order, as a part of more samples, in small portions."""
    if options and order not in (None, "ancestral"):
        pytest.skip("this kernel has no other order")
    model, structures = tiny_model(**options), small_structures()
    how = {"temperature": 0.5, "num_steps": 5, "order": order, "remask": 0.0 if options else 0.3}
    together = sample_sequences(model, structures, 3, **how)
    backwards = sample_sequences(model, structures[::-1], 3, **how)[::-1]
    alone = [sample_sequences(model, [structure], 4, **how)[0] for structure in structures]
    monkeypatch.setitem(sampling.MAX_RESIDUES, "cpu", 150)
    monkeypatch.setitem(sampling.MAX_PAIRS, "cpu", 130)
    portions = sample_sequences(model, structures, 3, **how)
    for one, others in zip(together, zip(backwards, alone, portions, strict=True), strict=True):
        for other in others:
            for attribute in ("residue_type", "score", "log_probability"):
                np.testing.assert_array_equal(getattr(one, attribute), getattr(other, attribute)[:3])


def test_seed_name_and_sample_matter():
    model, structure = tiny_model(), example("pdb1ubi.pdb.gz")
    [first] = sample_sequences(model, [structure], 2, 1.0, 4, 0)
    [other_seed] = sample_sequences(model, [structure], 2, 1.0, 4, 1)
    [other_name] = sample_sequences(model, [replace(structure, name="other")], 2, 1.0, 4, 0)
    sequences = [tuple(row) for designs in (first, other_seed, other_name) for row in designs.residue_type.tolist()]
    assert len(set(sequences)) == 6


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("steps", [1, 3, 1000, "L"])
def test_nothing_of_the_native_sequence_is_seen(order, steps):
    model = tiny_model()
    structures = [structure.take(np.arange(30)) for structure in small_structures()]
    others = [with_sequence(structure, seed) for seed, structure in enumerate(structures)]
    for first, second in zip(
        sample_sequences(model, structures, 2, 0.3, steps, order=order, remask=0.2),
        sample_sequences(model, others, 2, 0.3, steps, order=order, remask=0.2),
        strict=True,
    ):
        np.testing.assert_array_equal(first.residue_type, second.residue_type)
        np.testing.assert_array_equal(first.score, second.score)


def test_one_shot_takes_the_most_probable_types_at_temperature_zero():
    model, structures = tiny_model(), small_structures()
    with torch.no_grad():
        batch = backbone_batch(structures, torch.device("cpu"))
        blank = torch.full_like(batch.structure_index, 20)
        logits = model.decode(batch.encode(model), blank, torch.ones(len(structures)))
    expected = torch.where(batch.backbone_mask, logits.argmax(-1), 20)
    nll = -logits.log_softmax(-1).amax(-1)
    for designs, types, nats, seen in zip(
        sample_sequences(model, structures, 2, 0.0, 1),
        expected.split(batch.lengths),
        nll.split(batch.lengths),
        batch.backbone_mask.split(batch.lengths),
        strict=True,
    ):
        np.testing.assert_array_equal(designs.residue_type, np.stack([types.numpy()] * 2))
        np.testing.assert_allclose(designs.score, nats[seen].mean().item(), rtol=1e-5)
        assert np.isnan(designs.log_probability[:, ~seen.numpy()]).all()


@pytest.mark.parametrize("order", ["confidence", "margin"])
def test_orders_by_model_begin_with_the_surest(order):
    """Replayed with the model's own forward pass: at each step the residue that was chosen is the one that leads."""
    model, structure = tiny_model(), example("5PTI.cif.gz").take(np.arange(12))
    [designs] = sample_sequences(model, [structure], 1, 0.0, "L", order=order)
    final = torch.from_numpy(designs.residue_type[0].astype(np.int64))
    with torch.no_grad():
        encoded = backbone_batch([structure], torch.device("cpu")).encode(model)
        tokens = torch.full((12,), 20)
        for done in range(12):
            probabilities = model.decode(encoded, tokens, torch.tensor([1 - done / 12])).double().softmax(-1)
            best = probabilities.topk(2, dim=-1).values
            key = best[:, 0] if order == "confidence" else best[:, 0] - best[:, 1]
            chosen = int(key.masked_fill(tokens != 20, -1.0).argmax())
            tokens[chosen] = probabilities[chosen].argmax()
            expected = probabilities[chosen].max().log().item()
            assert designs.log_probability[0, chosen] == pytest.approx(expected, rel=1e-4)
    assert torch.equal(tokens, final)


def test_remasking_makes_only_the_least_certain_choices_again():
    model, structure = tiny_model(), example("pdb1ubi.pdb.gz")
    [once] = sample_sequences(model, [structure], 3, 1.0, 6, order="random")
    [twice] = sample_sequences(model, [structure], 3, 1.0, 6, order="random", remask=0.25)
    count = round(0.25 * len(structure))
    for before, after, first, second in zip(
        once.log_probability, twice.log_probability, once.residue_type, twice.residue_type, strict=True
    ):
        again = before != after
        assert again.sum() <= count
        worst = np.argsort(before)[:count]
        assert set(np.flatnonzero(again)) <= set(worst)
        assert again.sum() > count // 2 and (first[again] != second[again]).any()


def test_steps_beyond_the_number_of_residues_are_one_by_one():
    model, structure = tiny_model(), example("5PTI.cif.gz")
    [one_by_one] = sample_sequences(model, [structure], 2, 0.5, "L", order="margin")
    [many] = sample_sequences(model, [structure], 2, 0.5, 10_000, order="margin")
    np.testing.assert_array_equal(one_by_one.residue_type, many.residue_type)


def test_symmetric_oligomer_gets_one_sequence():
    """Three exact copies, tied: the types of a chain by itself in a ring that looks the same from each of them."""
    trimer = symmetric_copies(example("5PTI.cif.gz"), "ABC")
    plan = design_plan(trimer, Constraints(homo_oligomer=True))
    assert len(plan.bias) == 58
    [designs] = Sampler(tiny_model(), [trimer], [plan]).sample(4, SamplingSettings(0.5, 8))
    chains = designs.residue_type.reshape(4, 3, 58)
    assert (chains == chains[:, :1]).all() and len({tuple(row) for row in chains[:, 0].tolist()}) == 4


def test_tied_logits_are_means_of_weighted_logits():
    model, structure = tiny_model(), made_structure({"A": numbered(1, 6), "B": numbered(1, 6)})
    plan = design_plan(structure, Constraints(tied=("A2=-2.5*B5=0.5*B1",)))
    with torch.no_grad():
        encoded = backbone_batch([structure], torch.device("cpu")).encode(model)
        logits = model.decode(encoded, torch.full((12,), 20), torch.ones(1)).double()
    expected = ((logits[1] - 2.5 * logits[10] + 0.5 * logits[6]) / 3).argmax().item()
    assert expected != logits[1].argmax().item()
    [designs] = Sampler(model, [structure], [plan]).sample(1, SamplingSettings(0.0, 1))
    assert designs.residue_type[0, [1, 10, 6]].tolist() == [expected] * 3


def test_temperatures_biases_and_omitted_types():
    model, structure = tiny_model(), example("5PTI.cif.gz")
    hot = design_plan(structure, Constraints(temperature_at={"A1-10": 0.0, "A11-20": 20.0}))
    [designs] = Sampler(model, [structure], [hot]).sample(30, SamplingSettings(0.1, 1))
    kinds = [len(set(column)) for column in designs.residue_type.T.tolist()]
    assert max(kinds[:10]) == 1 and min(kinds[10:20]) > 8
    biased = design_plan(structure, Constraints(bias={"W": 100.0}, bias_at={"A5": {"K": 300.0}}, omit_at={"A7": "W"}))
    [designs] = Sampler(model, [structure], [biased]).sample(2, SamplingSettings(0.1, 4))
    letters = designs.residue_type
    assert (letters[:, 4] == 8).all() and (letters[:, 6] != 18).all()
    assert (np.delete(letters, [4, 6], axis=1) == 18).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": -1.0}, "--temperature must be"),
        ({"temperature": float("nan")}, "temperature must be"),
        ({"num_steps": 0}, "at least 1"),
        ({"num_steps": "l"}, "--num_steps must be at least 1, or L"),
        ({"order": "best"}, "ancestral, random"),
        ({"remask": 1.5}, "--remask must be a share of the residues from 0 to 1"),
    ],
)
def test_settings_out_of_range(changes, message):
    with pytest.raises(SamplingError, match=message):
        SamplingSettings(**changes)


def test_settings_that_the_model_does_not_have():
    uniform, one_pass = tiny_model(diffusion_kernel="uniform"), tiny_model(use_discrete_diffusion=False)
    for model in (uniform, one_pass):
        for settings in (SamplingSettings(order="margin"), SamplingSettings(remask=0.5)):
            with pytest.raises(SamplingError, match="for models with absorbing diffusion"):
                settings_for(model, settings)
    assert settings_for(one_pass, SamplingSettings(num_steps=7)).num_steps == 1
    assert settings_for(tiny_model(), SamplingSettings()).order == "margin"
    with pytest.raises(SamplingError, match="--num_sequences must be at least 1"):
        sample_sequences(uniform, [example("1orc.pdb.gz")], 0)


def test_a_model_of_one_pass_is_not_shown_fixed_residues():
    """It has never seen any, so they must not change what it says of the others."""
    model, structure = tiny_model(use_discrete_diffusion=False), example("5PTI.cif.gz")
    [free] = Sampler(model, [structure]).sample(1, SamplingSettings(0.0))
    plan = design_plan(structure, Constraints(fixed="A1-30"))
    [fixed] = Sampler(model, [structure], [plan]).sample(1, SamplingSettings(0.0))
    np.testing.assert_array_equal(fixed.residue_type[0, :30], structure.residue_type[:30])
    np.testing.assert_array_equal(fixed.residue_type[0, 30:], free.residue_type[0, 30:])


@pytest.mark.parametrize("kernel", ["absorbing", "uniform"])
def test_fixed_residues_are_seen(kernel):
    model, structure = tiny_model(diffusion_kernel=kernel), example("5PTI.cif.gz")
    plan = design_plan(structure, Constraints(fixed="A1-30"))
    other = with_sequence(structure, 0)
    [first] = Sampler(model, [structure], [plan]).sample(1, SamplingSettings(0.0, 8))
    [second] = Sampler(model, [other], [design_plan(other, Constraints(fixed="A1-30"))]).sample(
        1, SamplingSettings(0.0, 8)
    )
    assert np.abs(first.log_probability[0, 30:] - second.log_probability[0, 30:]).max() > 0.01


def test_structures_with_nothing_to_design():
    model, structure = tiny_model(), example("5PTI.cif.gz")
    blank = replace(structure, atom_mask=np.zeros_like(structure.atom_mask))
    for designs in sample_sequences(model, [structure, blank], 2)[1:]:
        assert (designs.residue_type == 20).all() and (designs.score == 0).all()
    with pytest.raises(ValueError, match="no structure"):
        Sampler(model, [])
