"""Recovery and perplexity by the number of denoising steps and by the order: what they buy, and what they cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..model.modeling import ProteinModel
from ..structures import Structure
from .evaluation import (
    EvaluationError,
    EvaluationSettings,
    Start,
    is_absorbing,
    predict_native,
    sample_designs,
    silent,
    stepwise_likelihoods,
)
from .metrics import Bootstrap, Estimate, recovery, scored_residues
from .native_likelihood import order_agnostic_nll
from .orders import ORDERS
from .sampling import ONE_BY_ONE, Steps, settings_for

DEFAULT_DRAWS = 8  # of the order-agnostic likelihood


@dataclass(frozen=True)
class StepFigures:
    """Figures at one number of steps, in one order.

    Attributes
    ----------
    steps : that number, or "L"
    order : in which residues are sampled
    recovery_median, recovery_mean : over structures, of the mean over samples
    recovery_by_residue : residue-weighted
    score : nats per residue that the model gave the choices of its samples, mean over samples and structures
    native_perplexity : of the native sequences decoded in so many steps, always in random order, over all residues;
        None where the model has no absorbing diffusion
    seconds : wall-clock time of sampling, encoding included
    residues_per_second : designed, over all samples
    """

    steps: Steps
    order: str
    recovery_median: Estimate
    recovery_mean: Estimate
    recovery_by_residue: Estimate
    score: float
    native_perplexity: Estimate | None
    seconds: float
    residues_per_second: float


def parse_step_counts(text: str, option: str = "--steps") -> list[Steps]:
    """Numbers of steps separated by commas; `L` is one step per residue.

    Raises
    ------
    EvaluationError : an entry is neither a number of at least 1 nor L
    """
    counts: list[Steps] = []
    for entry in text.split(","):
        word = entry.strip()
        if word.upper() == ONE_BY_ONE:
            counts.append("L")
        elif word.isdecimal() and int(word) >= 1:
            counts.append(int(word))
        else:
            raise EvaluationError(
                f"{option} {text}: {word!r} is neither a number of steps nor L (one step per residue)"
            )
    return list(dict.fromkeys(counts))


def parse_orders(text: str) -> list[str]:
    """Names of orders separated by commas.

    Raises
    ------
    EvaluationError : there is no such order
    """
    orders = [word.strip() for word in text.split(",")]
    for order in orders:
        if order not in ORDERS:
            raise EvaluationError(f"--orders {text}: there is no order {order!r}; there are {', '.join(ORDERS)}")
    return list(dict.fromkeys(orders))


def sweep_steps(
    model: ProteinModel,
    structures: Sequence[Structure],
    settings: EvaluationSettings,
    step_counts: Sequence[Steps],
    orders: Sequence[str | None] = (None,),
    start: Start = silent,
) -> list[StepFigures]:
    """Sample in every order at every number of steps, all else as in `settings`.

    Parameters
    ----------
    model : in evaluation mode
    structures : with a scored residue each
    settings : its number of steps and its order are not used
    step_counts : numbers of steps
    orders : None for that of the model's diffusion
    start : shows progress

    Raises
    ------
    SamplingError : an order is none of the model's diffusion
    """
    # A model that predicts all residues in one pass samples in one way only.
    ways = dict.fromkeys(
        settings_for(model, replace(settings.sampling, num_steps=steps, order=order))
        for order in orders
        for steps in step_counts
    )
    natives = dict(zip(step_counts, _native_nll(model, structures, settings, step_counts, start), strict=True))
    residues = np.array([scored_residues(structure).sum() for structure in structures], np.float64)
    bootstrap = Bootstrap(len(structures), settings.seed)
    figures = []
    for way in ways:
        advance = start(f"sampling, {way.order} order, {way.num_steps} steps")
        began = time.perf_counter()
        designs = sample_designs(model, structures, settings.num_sequences, way, advance)
        seconds = time.perf_counter() - began
        pairs = zip(structures, designs, strict=True)
        shares = np.array([recovery(found.residue_type, structure).mean() for structure, found in pairs])
        nll = natives.get(way.num_steps)
        figures.append(
            StepFigures(
                steps=way.num_steps,
                order=str(way.order),
                recovery_median=bootstrap.median(shares),
                recovery_mean=bootstrap.mean(shares),
                recovery_by_residue=bootstrap.ratio(shares * residues, residues),
                score=float(np.mean([found.score.mean() for found in designs])),
                native_perplexity=None if nll is None else bootstrap.perplexity(nll, residues),
                seconds=seconds,
                residues_per_second=settings.num_sequences * sum(map(len, structures)) / seconds,
            )
        )
    return figures


def _native_nll(
    model: ProteinModel,
    structures: Sequence[Structure],
    settings: EvaluationSettings,
    step_counts: Sequence[Steps],
    start: Start,
) -> list[np.ndarray | None]:
    """(structures,) nats of the native sequences for each number of steps."""
    if not is_absorbing(model):
        return [None] * len(step_counts)
    found: dict[Steps, np.ndarray] = {}
    numbers = [steps for steps in step_counts if isinstance(steps, int)]
    if numbers:
        advance = start("likelihood by number of steps")
        found.update(
            zip(numbers, stepwise_likelihoods(model, structures, numbers, settings.seed, advance), strict=True)
        )
    if ONE_BY_ONE in step_counts:
        draws = settings.num_orders or DEFAULT_DRAWS
        predictions = predict_native(model, structures, draws, settings.seed, start("likelihood one by one"))
        found["L"] = np.array([order_agnostic_nll(masked)[0] for _, masked in predictions if masked is not None])
    return [found[steps] for steps in step_counts]
