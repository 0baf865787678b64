"""The harness: what it lets a model see, that figures do not depend on the batching, and which there are."""

from __future__ import annotations

import numpy as np
import pytest

from protein_model.inference import native_likelihood, sampling
from protein_model.inference.evaluation import EvaluationError, EvaluationSettings, evaluate_structures
from protein_model.inference.evaluation_report import build_report
from protein_model.inference.metrics import scored_residues
from protein_model.inference.sampling import Sampler, SamplingError
from protein_model.inference.step_sweep import sweep_ways
from protein_model.model.decoding import SequenceDecoder
from tests.inference.evaluation_cases import designs_of, small_structures, tiny_model, with_sequence

SETTINGS = EvaluationSettings(num_sequences=2, num_steps=3, num_orders=3)
BACKBONE_ONLY = EvaluationSettings(num_sequences=2, num_steps=3, num_orders=0)
KERNELS = [
    {"use_discrete_diffusion": False},
    {"diffusion_kernel": "absorbing"},
    {"diffusion_kernel": "uniform"},
    {"diffusion_kernel": "substitution"},
]


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.mark.parametrize("options", KERNELS, ids=["one pass", "absorbing", "uniform", "substitution"])
def test_another_native_sequence_changes_no_prediction_and_no_design(options):
    """Nor do other side chains, B-factors and occupancies."""
    model = tiny_model(**options)
    structures = small_structures()
    others = [with_sequence(structure, seed) for seed, structure in enumerate(structures)]
    first = evaluate_structures(model, structures, BACKBONE_ONLY)
    second = evaluate_structures(model, others, BACKBONE_ONLY)
    for one, two in zip(first, second, strict=True):
        assert not np.array_equal(one.structure.residue_type, two.structure.residue_type)
        assert np.array_equal(one.one_shot.predicted, two.one_shot.predicted)
        assert np.array_equal(one.one_shot.confidence, two.one_shot.confidence)
        assert np.array_equal(one.designs, two.designs)
        assert np.array_equal(one.score, two.score)


def test_a_sampler_that_copies_what_it_is_given_falls_to_chance(model, monkeypatch):
    """If the guard were not there, this would be a recovery of 100 %."""

    class Copying(Sampler):
        def __init__(self, model, structures, **others):
            self._given = structures

        def sample(self, num_sequences, settings):
            return [designs_of(np.tile(structure.residue_type, (num_sequences, 1))) for structure in self._given]

    monkeypatch.setattr(native_likelihood, "Sampler", Copying)
    report = build_report(evaluate_structures(model, small_structures(), SETTINGS), seed=0)
    assert report.summary.sampled_recovery.by_residue.value < 0.12


def test_the_decoder_sees_native_residues_only_where_the_definition_says_so(model, monkeypatch):
    seen = []
    logits = SequenceDecoder.logits

    def watch(self, tokens, noise_level, pairs=None):
        seen.append((tokens.T.clone(), noise_level.T.clone()))
        return logits(self, tokens, noise_level, pairs)

    monkeypatch.setattr(SequenceDecoder, "logits", watch)
    [structure] = small_structures()[1:2]
    settings = EvaluationSettings(num_sequences=0, num_orders=5)
    [found] = evaluate_structures(model, [structure], settings)
    blank, level = seen[0]
    assert (blank == 20).all() and (level == 1).all()
    shown = np.concatenate([tokens.numpy() for tokens, _ in seen[1:]])
    assert np.array_equal(shown == 20, found.order_agnostic.masked | ~scored_residues(structure))
    assert np.array_equal(shown[shown < 20], np.broadcast_to(structure.residue_type, shown.shape)[shown < 20])


@pytest.mark.parametrize("limit", [1, 150, 100_000])
def test_figures_do_not_depend_on_the_batching_or_on_the_order_of_the_structures(model, monkeypatch, limit):
    """Not even in the last bit."""
    structures = small_structures()
    ways = sweep_ways(model, SETTINGS, [1, 3, "L"])
    expected = evaluate_structures(model, structures, SETTINGS, ways)
    monkeypatch.setattr(sampling, "MAX_RESIDUES", {"cpu": limit})
    monkeypatch.setattr(sampling, "MAX_PAIRS", {"cpu": 2 * limit})
    found = evaluate_structures(model, structures[::-1], SETTINGS, ways)[::-1]
    for one, two in zip(expected, found, strict=True):
        for kind in ("one_shot", "order_agnostic"):
            for name in ("masked", "nll", "predicted", "confidence"):
                assert np.array_equal(getattr(getattr(one, kind), name), getattr(getattr(two, kind), name))
        assert np.array_equal(one.designs, two.designs) and np.array_equal(one.score, two.score)
        assert len(one.native_by_steps) == 3 and one.native_by_steps == two.native_by_steps
        for way in ways:
            first, second = one.by_way[way], two.by_way[way]
            assert (first.recovery, first.score) == (second.recovery, second.score)


def test_same_seed_same_figures(model):
    structures = small_structures()
    first, second = (build_report(evaluate_structures(model, structures, SETTINGS), seed=0) for _ in range(2))
    assert first.summary == second.summary and first.groups == second.groups and first.structures == second.structures
    other = EvaluationSettings(num_sequences=2, num_steps=3, num_orders=3, seed=1)
    third = build_report(evaluate_structures(model, structures, other), seed=1)
    assert third.summary.order_agnostic_perplexity != first.summary.order_agnostic_perplexity
    assert third.summary.one_shot_perplexity.value == first.summary.one_shot_perplexity.value


def test_only_absorbing_diffusion_predicts_some_residues_from_others():
    structures = small_structures()[:1]
    for options, expected in zip(KERNELS, (False, True, False, False), strict=True):
        [found] = evaluate_structures(tiny_model(**options), structures, SETTINGS)
        assert (found.order_agnostic is not None) == expected


def test_what_is_not_asked_for_is_not_there(model):
    [found] = evaluate_structures(model, small_structures()[:1], EvaluationSettings(num_sequences=0, num_orders=0))
    assert found.designs is None and found.order_agnostic is None and found.one_shot is not None
    assert evaluate_structures(model, [], SETTINGS) == []


@pytest.mark.parametrize("samples", [0, 1])
def test_progress_adds_up_to_all_that_there_is_to_do(model, samples):
    totals, finished = [], []

    def start(total):
        totals.append(total)
        return finished.append

    structures = small_structures()
    settings = EvaluationSettings(num_sequences=samples, num_orders=1)
    ways = sweep_ways(model, settings, [1, settings.num_steps]) if samples else []
    evaluate_structures(model, structures, settings, ways, start)
    parts = 3 if samples else 1  # likelihood, and sampling in the way of the settings, which is one of two
    assert totals == [sum(finished)] == [parts * sum(map(len, structures))]


def test_each_structure_is_encoded_once(model, monkeypatch):
    encoded = []
    encode = type(model).encode

    def watch(self, backbone, *others):
        encoded.append(len(backbone))
        return encode(self, backbone, *others)

    monkeypatch.setattr(type(model), "encode", watch)
    structures = small_structures()
    evaluate_structures(model, structures, SETTINGS, sweep_ways(model, SETTINGS, [1, 2, "L"], ["random", "margin"]))
    assert sorted(encoded) == sorted(map(len, structures))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("num_sequences", -1, "--num_sequences must be at least 0"),
        ("num_orders", -1, "--num_orders must be at least 0"),
        ("temperature", -0.1, "--temperature must be"),
        ("temperature", float("nan"), "temperature must be"),
        ("num_steps", 0, "--num_steps must be at least 1"),
        ("order", "backwards", "--order must be one of"),
    ],
)
def test_settings_out_of_range_are_refused_before_anything_is_done(name, value, message):
    with pytest.raises((EvaluationError, SamplingError), match=message):
        EvaluationSettings(**{name: value})
