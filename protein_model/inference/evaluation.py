"""Runs a model on structures with known sequences: what it predicts for the native ones, and what it designs.

The model is given blinded structures (`blinding`): nothing of the native sequence can reach the figures that are taken
from the backbone alone. Turning predictions into figures is left to `evaluation_report` and `step_sweep`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import UserError
from ..model.modeling import ProteinModel
from ..structures import Structure
from .inputs import grouped_by_length
from .metrics import recovery
from .native_likelihood import (
    BackboneReader,
    MaskedPredictions,
    order_agnostic_masks,
    order_agnostic_nll,
    stepwise_likelihoods,
)
from .sampling import (
    DEFAULT_STEPS,
    DEFAULT_TEMPERATURE,
    ONE_BY_ONE,
    Designs,
    SamplingSettings,
    Steps,
    max_residues,
    settings_for,
)

DEFAULT_ORDERS = 8  # draws of the order-agnostic likelihood

Advance = Callable[[int], object]  # called with a number of residues finished
Start = Callable[[int], Advance]  # called with that of all parts of the work together


class EvaluationError(UserError, ValueError):
    """Nothing can be measured as asked."""


@dataclass(frozen=True)
class EvaluationSettings:
    """How figures are made; part of every result.

    Attributes
    ----------
    num_sequences : samples per structure; 0 leaves sampled recovery out
    temperature : of sampling
    num_steps : denoising steps of sampling, or "L" for one residue at a time
    order : in which residues are sampled, by default that of the model's diffusion; see `SamplingSettings`
    num_orders : Monte Carlo draws per structure for the order-agnostic likelihood; 0 leaves it out
    seed : of all draws
    """

    num_sequences: int = 4
    temperature: float = DEFAULT_TEMPERATURE
    num_steps: Steps = DEFAULT_STEPS
    order: str | None = None
    num_orders: int = DEFAULT_ORDERS
    seed: int = 0

    def __post_init__(self) -> None:
        for option, value in (("--num_sequences", self.num_sequences), ("--num_orders", self.num_orders)):
            if value < 0:
                raise EvaluationError(f"{option} must be at least 0, but is {value}")
        _ = self.sampling  # checks the others

    @property
    def sampling(self) -> SamplingSettings:
        """What of it sampling depends on.

        Raises
        ------
        SamplingError : a setting is out of its range
        """
        return SamplingSettings(self.temperature, self.num_steps, self.order, seed=self.seed)


@dataclass(frozen=True)
class Sampled:
    """What one way of sampling gave for one structure.

    Attributes
    ----------
    recovery : mean over samples
    score : nats per residue that the model gave its choices, mean over samples
    seconds : of computing, encoding included; structures sampled together share their time by residues
    """

    recovery: float
    score: float
    seconds: float


@dataclass(frozen=True, eq=False)
class Evaluated:
    """One structure, what was predicted for its native sequence and what was designed on its backbone.

    Attributes
    ----------
    structure : with the native sequence
    one_shot : all residues predicted at once; None where no model was run
    order_agnostic : random subsets predicted from the rest; None where they were not asked for or the model has no
        absorbing diffusion
    designs : (samples, L) residue types, 20 where nothing was designed; None where nothing was sampled
    score : (samples,) nats per residue that the model gave its choices; None where it is not known
    by_way : what further ways of sampling gave
    native_by_steps : nats of the native sequence decoded in so many steps; for the steps of these ways, where the model
        has absorbing diffusion
    """

    structure: Structure
    one_shot: MaskedPredictions | None = None
    order_agnostic: MaskedPredictions | None = None
    designs: np.ndarray | None = None
    score: np.ndarray | None = None
    by_way: Mapping[SamplingSettings, Sampled] = field(default_factory=dict)
    native_by_steps: Mapping[Steps, float] = field(default_factory=dict)


def is_absorbing(model: ProteinModel) -> bool:
    """True for a model that was trained to predict some residues from others: one with absorbing diffusion."""
    return bool(model.config.use_discrete_diffusion) and model.config.diffusion_kernel == "absorbing"


def no_progress(total: int) -> Advance:
    """A `Start` that shows nothing."""
    return lambda residues: None


def evaluate_structures(
    model: ProteinModel,
    structures: Sequence[Structure],
    settings: EvaluationSettings,
    ways: Sequence[SamplingSettings] = (),
    start: Start = no_progress,
) -> list[Evaluated]:
    """Predict and sample for each structure, in their order; each is encoded once, whatever is asked of it.

    Parameters
    ----------
    model : in evaluation mode
    structures : with their native sequences; with a scored residue each where there are `ways`
    ways : of sampling, as they are for the model, to compare: for `Evaluated.by_way` and `Evaluated.native_by_steps`
    start : shows progress

    Raises
    ------
    SamplingError : the order is none of the model's diffusion
    """
    all_ways = list(dict.fromkeys([settings_for(model, settings.sampling), *ways])) if settings.num_sequences else []
    groups = grouped_by_length(structures, max_residues(next(model.parameters()).device))
    advance = start((1 + len(all_ways)) * sum(map(len, structures)))
    results: dict[int, Evaluated] = {}
    for group in groups:
        members = [structures[index] for index in group]
        results.update(zip(group, _evaluate_together(model, members, settings, all_ways, ways, advance), strict=True))
    return [results[index] for index in range(len(structures))]


def _evaluate_together(
    model: ProteinModel,
    structures: Sequence[Structure],
    settings: EvaluationSettings,
    all_ways: Sequence[SamplingSettings],
    compared: Sequence[SamplingSettings],
    advance: Advance,
) -> list[Evaluated]:
    """Results for structures that memory has room for together.

    Parameters
    ----------
    all_ways : of sampling, those of the settings first; none where nothing is sampled
    compared : those of them whose figures are wanted by way
    """
    residues = sum(map(len, structures))
    began = time.perf_counter()
    reader = BackboneReader(model, structures)
    encoding = time.perf_counter() - began
    one_shot = reader.one_shot()
    order_agnostic: list[MaskedPredictions] | None = None
    if settings.num_orders and is_absorbing(model):
        order_agnostic = reader.masked(_any_order(structures, settings.num_orders, settings.seed))
    natives = _native_by_steps(reader, order_agnostic, settings, compared) if is_absorbing(model) else {}
    advance(residues)
    designs: list[Designs] | None = None
    by_way: dict[SamplingSettings, list[Sampled]] = {}
    if all_ways:
        began = time.perf_counter()
        sampler = reader.sampler()
        prepared = encoding + time.perf_counter() - began
        for way in all_ways:
            began = time.perf_counter()
            found = sampler.sample(settings.num_sequences, way)
            seconds = prepared + time.perf_counter() - began
            designs = found if designs is None else designs
            if way in compared:
                by_way[way] = [
                    Sampled(
                        recovery=float(recovery(own.residue_type, structure).mean()),
                        score=float(own.score.mean(dtype=np.float64)),
                        seconds=seconds * len(structure) / residues,
                    )
                    for structure, own in zip(structures, found, strict=True)
                ]
            advance(residues)
    return [
        Evaluated(
            structure,
            one_shot[index],
            None if order_agnostic is None else order_agnostic[index],
            None if designs is None else designs[index].residue_type,
            None if designs is None else designs[index].score,
            {way: sampled[index] for way, sampled in by_way.items()},
            {steps: float(nll[index]) for steps, nll in natives.items()},
        )
        for index, structure in enumerate(structures)
    ]


def _any_order(structures: Sequence[Structure], draws: int, seed: int) -> list[np.ndarray]:
    return [order_agnostic_masks(structure, draws, seed) for structure in structures]


def _native_by_steps(
    reader: BackboneReader,
    order_agnostic: list[MaskedPredictions] | None,
    settings: EvaluationSettings,
    ways: Sequence[SamplingSettings],
) -> dict[Steps, Sequence[float]]:
    """Nats of each native sequence by number of steps, for the numbers that ways of sampling have."""
    found: dict[Steps, Sequence[float]] = {}
    numbers = list(dict.fromkeys(way.num_steps for way in ways if isinstance(way.num_steps, int)))
    if numbers:
        found.update(zip(numbers, stepwise_likelihoods(reader, numbers, settings.seed).tolist(), strict=True))
    if any(way.num_steps == ONE_BY_ONE for way in ways):
        if order_agnostic is None:
            order_agnostic = reader.masked(_any_order(reader.structures, DEFAULT_ORDERS, settings.seed))
        found["L"] = [order_agnostic_nll(masked)[0] for masked in order_agnostic]
    return found
