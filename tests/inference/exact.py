"""Distributions of designs by enumeration: every state of every step, with the model's own forward pass."""

from __future__ import annotations

from itertools import pairwise, permutations, product

import numpy as np
import torch

from protein_model.inference.constraints import DesignPlan
from protein_model.inference.inputs import backbone_batch
from protein_model.model.modeling import ProteinModel
from protein_model.structures import Structure

NOTHING = 20


def _predictions(
    model: ProteinModel,
    structure: Structure,
    plan: DesignPlan,
    states: list[tuple[int, ...]],
    level: float,
    temperature: float,
) -> np.ndarray:
    """(states, L, 20) tempered probabilities of the clean types in each state; all residues are designed, none tied."""
    with torch.no_grad():
        encoded = backbone_batch([structure], torch.device("cpu")).encode(model)
        logits = model.decode(encoded, torch.tensor(states), torch.full((len(states), 1), level)).double()
    return ((logits + torch.from_numpy(plan.bias)) / temperature).softmax(-1).numpy()


def ancestral_distribution(
    model: ProteinModel, structure: Structure, plan: DesignPlan, steps: int, temperature: float
) -> dict[tuple[int, ...], float]:
    """Probability of each final sequence under the reverse process: the exact posterior at each step and state."""
    diffusion = model.diffusion
    ladder = diffusion.alpha_bar(torch.linspace(diffusion.num_steps, 0, steps + 1, dtype=torch.float64)).tolist()
    states = {(NOTHING,) * len(structure): 1.0}
    for alpha_t, alpha_s in pairwise(ladder):
        keys = list(states)
        clean = _predictions(model, structure, plan, keys, 1.0 - alpha_t, temperature)
        following: dict[tuple[int, ...], float] = {}
        for key, prediction in zip(keys, clean, strict=True):
            posterior = diffusion.posterior(
                torch.tensor(key), torch.from_numpy(prediction), alpha_t=alpha_t, alpha_s=alpha_s
            ).numpy()
            choices = [np.flatnonzero(row > 0) for row in posterior]
            for state in product(*choices):
                share = states[key] * np.prod([row[token] for row, token in zip(posterior, state, strict=True)])
                name = tuple(int(token) for token in state)
                following[name] = following.get(name, 0.0) + share
        states = following
    return states


def one_by_one_distribution(
    model: ProteinModel, structure: Structure, plan: DesignPlan, temperature: float
) -> dict[tuple[int, ...], float]:
    """Probability of each sequence when residues are chosen one at a time, in every order with equal probability."""
    length = len(structure)
    orders = list(permutations(range(length)))
    total: dict[tuple[int, ...], float] = {}
    for order in orders:
        states = {(NOTHING,) * length: 1.0 / len(orders)}
        for done, place in enumerate(order):
            keys = list(states)
            clean = _predictions(model, structure, plan, keys, 1.0 - done / length, temperature)
            following: dict[tuple[int, ...], float] = {}
            for key, prediction in zip(keys, clean, strict=True):
                for token in np.flatnonzero(prediction[place] > 0):
                    state = (*key[:place], int(token), *key[place + 1 :])
                    following[state] = following.get(state, 0.0) + states[key] * prediction[place, token]
            states = following
        for state, share in states.items():
            total[state] = total.get(state, 0.0) + share
    return total


def chi_square(counts: dict[tuple[int, ...], int], expected: dict[tuple[int, ...], float]) -> tuple[float, int]:
    """Pearson's statistic of counts against probabilities, rare outcomes pooled, and its degrees of freedom."""
    total = sum(counts.values())
    assert set(counts) <= {state for state, share in expected.items() if share > 0}
    common = [state for state, share in expected.items() if share * total >= 5]
    pairs = [(counts.get(state, 0), expected[state] * total) for state in common]
    rare = total - sum(count for count, _ in pairs), total * max(0.0, 1.0 - sum(expected[state] for state in common))
    if rare[1] >= 5:
        pairs.append(rare)
    return sum((count - mean) ** 2 / mean for count, mean in pairs), len(pairs) - 1
