"""In which order residues of a masked sequence get their types, and how many at each step.

Plain functions of numbers drawn beforehand. Orders that depend on what the model says (confidence, margin) only take
their counts from here; who is chosen is decided in `unmasking`.
"""

from __future__ import annotations

import numpy as np

ORDERS = ("ancestral", "random", "confidence", "margin")
MODEL_ORDERS = ("confidence", "margin")  # these look at the logits of all residues that are left


def steps_for(choices: int, num_steps: int | None) -> int:
    """Denoising steps for that many choices: no more than there are, one for each where `num_steps` is None."""
    return max(1, choices if num_steps is None else min(num_steps, choices))


def counts_done(choices: int, steps: int) -> np.ndarray:
    """(steps + 1,) int64, choices made before each step and after the last; evenly, the larger shares first."""
    return -(-choices * np.arange(steps + 1) // steps)


def random_order_steps(uniform: np.ndarray, todo: np.ndarray, steps: int) -> np.ndarray:
    """Step of each choice when a random order is cut into equal steps.

    Parameters
    ----------
    uniform : (U, S) numbers that give the order, smallest first, for each of S samples
    todo : (U, S) bool, choices to be made, equally many for each sample
    steps : from 1 to that number

    Returns
    -------
    (U, S) int64, -1 for choices that are not to be made
    """
    count = int(todo[:, 0].sum()) if todo.shape[1] else 0
    order = np.argsort(np.where(todo, uniform, np.inf), axis=0, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.broadcast_to(np.arange(len(order))[:, None], order.shape), axis=0)
    step = rank * steps // max(count, 1)
    return np.where(todo, step, -1)


def ancestral_steps(uniform: np.ndarray, todo: np.ndarray, steps: int) -> np.ndarray:
    """Step of each choice in exact ancestral sampling of absorbing diffusion with evenly spaced retentions.

    A masked residue stays masked from retention a to b with probability (1 - b) / (1 - a), independently of all
    others (Austin et al. 2021). So a residue with the uniform number u gets its type where retention first exceeds u.

    Parameters
    ----------
    uniform : (U, S), 0 to 1, 1 excluded
    todo : (U, S) bool, choices to be made

    Returns
    -------
    (U, S) int64, -1 for choices that are not to be made
    """
    return np.where(todo, np.floor(uniform * steps).astype(np.int64), -1)
