"""Runs a model on structures with known sequences: what it predicts for the native ones, and what it designs.

The model is given blinded structures (`blinding`): nothing of the native sequence can reach the figures that are taken
from the backbone alone. Turning predictions into figures is left to `evaluation_report`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..errors import UserError
from ..model.modeling import ProteinModel
from ..structures import Structure
from .blinding import blinded
from .inputs import grouped_by_length
from .native_likelihood import (
    BackboneReader,
    MaskedPredictions,
    order_agnostic_masks,
    stepwise_masks,
    stepwise_nll,
    stepwise_shares,
)
from .sampling import (
    DEFAULT_STEPS,
    DEFAULT_TEMPERATURE,
    Designs,
    SamplingSettings,
    Steps,
    max_residues,
    sample_sequences,
)

Advance = Callable[[int], object]  # called with a number of residues finished
Start = Callable[[str], Advance]  # called with the name of a part of the work; each goes once over all residues
Result = TypeVar("Result")


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
    num_orders: int = 8
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
    """

    structure: Structure
    one_shot: MaskedPredictions | None = None
    order_agnostic: MaskedPredictions | None = None
    designs: np.ndarray | None = None
    score: np.ndarray | None = None


def is_absorbing(model: ProteinModel) -> bool:
    """True for a model that was trained to predict some residues from others: one with absorbing diffusion."""
    return bool(model.config.use_discrete_diffusion) and model.config.diffusion_kernel == "absorbing"


def predict_native(
    model: ProteinModel,
    structures: Sequence[Structure],
    num_orders: int,
    seed: int,
    advance: Advance = lambda residues: None,
) -> list[tuple[MaskedPredictions, MaskedPredictions | None]]:
    """One-shot and order-agnostic predictions for each structure, in their order.

    Parameters
    ----------
    model : in evaluation mode
    num_orders : draws for the order-agnostic ones, which a model without absorbing diffusion has none of
    seed : of the draws
    advance : shows progress
    """
    draws = num_orders if is_absorbing(model) else 0

    def measure(members: list[Structure]) -> list[tuple[MaskedPredictions, MaskedPredictions | None]]:
        reader = BackboneReader(model, members)
        one_shot = reader.one_shot()
        if not draws:
            return [(prediction, None) for prediction in one_shot]
        masks = [order_agnostic_masks(member, draws, seed) for member in members]
        return list(zip(one_shot, reader.masked(masks), strict=True))

    return _in_groups(model, structures, measure, advance)


def sample_designs(
    model: ProteinModel,
    structures: Sequence[Structure],
    num_sequences: int,
    how: SamplingSettings,
    advance: Advance = lambda residues: None,
) -> list[Designs]:
    """Designs for each structure, in their order, from their backbones alone.

    Parameters
    ----------
    model : in evaluation mode
    num_sequences : for each structure
    how : they are sampled
    advance : shows progress

    Raises
    ------
    SamplingError : the order is none of the model's diffusion
    """

    def measure(members: list[Structure]) -> list[Designs]:
        hidden = [blinded(member) for member in members]
        return sample_sequences(model, hidden, num_sequences, how.temperature, how.num_steps, how.seed, order=how.order)

    return _in_groups(model, structures, measure, advance)


def silent(title: str) -> Advance:
    """A `Start` that shows nothing."""
    return lambda residues: None


def evaluate_structures(
    model: ProteinModel,
    structures: Sequence[Structure],
    settings: EvaluationSettings,
    start: Start = silent,
) -> list[Evaluated]:
    """Predict and sample for each structure, in their order.

    Parameters
    ----------
    model : in evaluation mode
    structures : with their native sequences
    start : shows progress
    """
    advance = start("likelihood")
    predictions = predict_native(model, structures, settings.num_orders, settings.seed, advance)
    sampled: list[Designs | None] = [None] * len(structures)
    if settings.num_sequences:
        sampled = list(sample_designs(model, structures, settings.num_sequences, settings.sampling, start("sampling")))
    return [
        Evaluated(
            structure,
            one_shot,
            order_agnostic,
            None if designs is None else designs.residue_type,
            None if designs is None else designs.score,
        )
        for structure, (one_shot, order_agnostic), designs in zip(structures, predictions, sampled, strict=True)
    ]


def stepwise_likelihoods(
    model: ProteinModel,
    structures: Sequence[Structure],
    step_counts: Sequence[int],
    seed: int,
    advance: Advance = lambda residues: None,
) -> np.ndarray:
    """Negative log-likelihoods of the native sequences when they are decoded in so many steps.

    Parameters
    ----------
    model : in evaluation mode, with absorbing diffusion
    step_counts : numbers of steps, each at least 1
    seed : of the masks
    advance : shows progress

    Returns
    -------
    (len(step_counts), structures) nats
    """
    shares = stepwise_shares(step_counts)

    def measure(members: list[Structure]) -> list[list[float]]:
        predictions = BackboneReader(model, members).masked(
            [stepwise_masks(member, shares, seed) for member in members]
        )
        return [[stepwise_nll(prediction, shares, steps) for steps in step_counts] for prediction in predictions]

    return np.array(_in_groups(model, structures, measure, advance)).T


def _in_groups(
    model: ProteinModel,
    structures: Sequence[Structure],
    measure: Callable[[list[Structure]], Sequence[Result]],
    advance: Advance,
) -> list[Result]:
    """Results of `measure` for each structure, in their order, found for groups of similar lengths."""
    results: dict[int, Result] = {}
    for group in grouped_by_length(structures, max_residues(next(model.parameters()).device)):
        members = [structures[index] for index in group]
        results.update(zip(group, measure(members), strict=True))
        advance(sum(map(len, members)))
    return [results[index] for index in range(len(structures))]
