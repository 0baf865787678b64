"""Recovery and perplexity by the number of denoising steps: what more steps buy, and what they cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..model.modeling import ProteinModel
from ..structures import Structure
from .evaluation import (
    Advance,
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

PER_RESIDUE = "L"  # as many steps as the structure has residues
StepCount = int | str
DEFAULT_ORDERS = 8


@dataclass(frozen=True)
class StepFigures:
    """Figures at one number of steps.

    Attributes
    ----------
    steps : that number, or "L"
    recovery_median, recovery_mean : over structures, of the mean over samples
    recovery_by_residue : residue-weighted
    score : nats per residue that the model gave the choices of its samples, mean over samples and structures
    native_perplexity : of the native sequences decoded in so many steps in random order, over all residues; None where
        the model has no absorbing diffusion
    seconds : wall-clock time of sampling
    residues_per_second : designed, over all samples
    """

    steps: StepCount
    recovery_median: Estimate
    recovery_mean: Estimate
    recovery_by_residue: Estimate
    score: float
    native_perplexity: Estimate | None
    seconds: float
    residues_per_second: float


def parse_step_counts(text: str) -> list[StepCount]:
    """Numbers of steps separated by commas; `L` is one step per residue.

    Raises
    ------
    EvaluationError : an entry is neither a number of at least 1 nor L
    """
    counts: list[StepCount] = []
    for entry in text.split(","):
        word = entry.strip()
        if word.upper() == PER_RESIDUE:
            counts.append(PER_RESIDUE)
        elif word.isdecimal() and int(word) >= 1:
            counts.append(int(word))
        else:
            raise EvaluationError(f"--steps {text}: {word!r} is neither a number of steps nor L (one step per residue)")
    return list(dict.fromkeys(counts))


def sweep_steps(
    model: ProteinModel,
    structures: Sequence[Structure],
    settings: EvaluationSettings,
    step_counts: Sequence[StepCount],
    start: Start = silent,
) -> list[StepFigures]:
    """Sample at every number of steps, all else as in `settings`.

    Parameters
    ----------
    model : in evaluation mode
    structures : with a scored residue each
    settings : its number of steps is not used
    start : shows progress
    """
    natives = _native_nll(model, structures, settings, step_counts, start)
    residues = np.array([scored_residues(structure).sum() for structure in structures], np.float64)
    bootstrap = Bootstrap(len(structures), settings.seed)
    figures = []
    for steps, nll in zip(step_counts, natives, strict=True):
        advance = start(f"sampling in {steps} steps")
        began = time.perf_counter()
        shares, scores = _sample(model, structures, settings, steps, advance)
        seconds = time.perf_counter() - began
        figures.append(
            StepFigures(
                steps=steps,
                recovery_median=bootstrap.median(shares),
                recovery_mean=bootstrap.mean(shares),
                recovery_by_residue=bootstrap.ratio(shares * residues, residues),
                score=float(np.mean(scores)),
                native_perplexity=None if nll is None else bootstrap.perplexity(nll, residues),
                seconds=seconds,
                residues_per_second=settings.num_sequences * sum(map(len, structures)) / seconds,
            )
        )
    return figures


def _sample(
    model: ProteinModel,
    structures: Sequence[Structure],
    settings: EvaluationSettings,
    steps: StepCount,
    advance: Advance,
) -> tuple[np.ndarray, np.ndarray]:
    """Recovery and score of each structure, means over its samples."""
    how = (settings.num_sequences, settings.temperature)
    if isinstance(steps, int):
        designs = sample_designs(model, structures, *how, steps, settings.seed, advance)
    else:
        designs = [
            sample_designs(model, [structure], *how, len(structure), settings.seed, advance)[0]
            for structure in structures
        ]
    shares = [
        recovery(found.residue_type, structure).mean() for structure, found in zip(structures, designs, strict=True)
    ]
    return np.array(shares), np.array([found.score.mean() for found in designs])


def _native_nll(
    model: ProteinModel,
    structures: Sequence[Structure],
    settings: EvaluationSettings,
    step_counts: Sequence[StepCount],
    start: Start,
) -> list[np.ndarray | None]:
    """(structures,) nats of the native sequences for each number of steps."""
    if not is_absorbing(model):
        return [None] * len(step_counts)
    found: dict[StepCount, np.ndarray] = {}
    numbers = [steps for steps in step_counts if isinstance(steps, int)]
    if numbers:
        advance = start("likelihood by number of steps")
        found.update(
            zip(numbers, stepwise_likelihoods(model, structures, numbers, settings.seed, advance), strict=True)
        )
    if PER_RESIDUE in step_counts:
        orders = settings.num_orders or DEFAULT_ORDERS
        predictions = predict_native(model, structures, orders, settings.seed, start("likelihood one by one"))
        found[PER_RESIDUE] = np.array(
            [order_agnostic_nll(masked)[0] for _, masked in predictions if masked is not None]
        )
    return [found[steps] for steps in step_counts]
