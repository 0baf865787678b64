"""Recovery and perplexity by the number of denoising steps and by the order: what they buy, and what they cost.

Which ways of sampling are compared, and figures of each; running the model is left to `evaluation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..model.modeling import ProteinModel
from .evaluation import Evaluated, EvaluationError, EvaluationSettings
from .metrics import Bootstrap, Estimate, scored_residues
from .orders import ORDERS
from .sampling import ONE_BY_ONE, SamplingSettings, Steps, settings_for


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
    seconds : time of sampling, encoding included, that of all processes added up
    residues_per_second : designed by one process, over all samples
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


def sweep_ways(
    model: ProteinModel,
    settings: EvaluationSettings,
    step_counts: Sequence[Steps],
    orders: Sequence[str | None] = (None,),
) -> list[SamplingSettings]:
    """Every order at every number of steps, all else as in `settings`, for `evaluate_structures`.

    Parameters
    ----------
    settings : its number of steps and its order are not used
    step_counts : numbers of steps
    orders : None for that of the model's diffusion

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
    return list(ways)


def step_figures(
    entries: Sequence[Evaluated], ways: Sequence[SamplingSettings], settings: EvaluationSettings
) -> list[StepFigures]:
    """Figures of each way over a set.

    Parameters
    ----------
    entries : of `evaluate_structures` with these settings and ways
    """
    scored = np.array([scored_residues(entry.structure).sum() for entry in entries], np.float64)
    sampled_residues = settings.num_sequences * sum(len(entry.structure) for entry in entries)
    bootstrap = Bootstrap(len(entries), settings.seed)
    figures = []
    for way in ways:
        sampled = [entry.by_way[way] for entry in entries]
        shares = np.array([own.recovery for own in sampled])
        nll = [entry.native_by_steps[way.num_steps] for entry in entries if way.num_steps in entry.native_by_steps]
        seconds = sum(own.seconds for own in sampled)
        figures.append(
            StepFigures(
                steps=way.num_steps,
                order=str(way.order),
                recovery_median=bootstrap.median(shares),
                recovery_mean=bootstrap.mean(shares),
                recovery_by_residue=bootstrap.ratio(shares * scored, scored),
                score=float(np.mean([own.score for own in sampled])),
                native_perplexity=bootstrap.perplexity(np.array(nll), scored) if nll else None,
                seconds=seconds,
                residues_per_second=sampled_residues / seconds,
            )
        )
    return figures
