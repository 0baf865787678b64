"""The choices of `DesignPlan`s as tensors: logits of residues -> logits of choices -> residue types.

Tied residues speak with one voice here; biases, omitted types and temperatures are applied here. In which order choices
are made is left to the samplers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..model.diffusion import inverse_cdf
from .constraints import DESIGNED, NUM_RESIDUE_TYPES, DesignPlan


class ChoiceBatch:
    """`U` choices for `B` structures with `N` residues end to end; choices of a structure stand together.

    Attributes
    ----------
    rows : (U, G) int64, visible residues of each choice, filled up by repeating the first
    weights : (U, G) float64, 0 where filled up
    structure : (U,) int64
    sizes : choices of each structure
    visible : (N,) bool
    unknown : (N,) bool, fixed residues of unknown type
    fixed_tokens : (N,) int64, what the model sees of fixed residues: their types, 20 for all others
    leaders : (U,) int64, first residue of each choice; its random numbers are those of the choice
    """

    def __init__(self, plans: Sequence[DesignPlan], device: torch.device):
        lengths = [len(plan.unit) for plan in plans]
        starts = np.cumsum([0, *lengths])
        self.sizes = [len(plan.bias) for plan in plans]
        rows, weights, leaders = [], [], []
        for plan, start in zip(plans, starts.tolist(), strict=False):
            for_units = _members(plan)
            rows += [members + start for members in for_units]
            weights += [plan.weight[members] for members in for_units]
            leaders.append(np.unique(plan.unit[plan.unit >= 0], return_index=True)[1])
            leaders[-1] = np.flatnonzero(plan.unit >= 0)[leaders[-1]] + start
        widest = max((len(members) for members in rows), default=1)
        padded = np.zeros((len(rows), widest), np.int64)
        padded_weights = np.zeros((len(rows), widest))
        for index, (members, weight) in enumerate(zip(rows, weights, strict=True)):
            padded[index] = members[0]
            padded[index, : len(members)] = members
            padded_weights[index, : len(members)] = weight
        fixed = np.concatenate([plan.fixed_type for plan in plans]).astype(np.int64)
        visible = np.concatenate([plan.visible for plan in plans])

        def tensor(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array).to(device)

        self.rows = tensor(padded)
        self.weights = tensor(padded_weights)
        self.leaders = np.concatenate(leaders) if leaders else np.zeros(0, np.int64)
        self.structure = tensor(np.repeat(np.arange(len(plans)), self.sizes))
        self.visible = tensor(visible)
        self.unknown = tensor(fixed == NUM_RESIDUE_TYPES)
        self.fixed_tokens = tensor(np.where(visible & (fixed != DESIGNED), fixed, NUM_RESIDUE_TYPES))
        self.bias = tensor(np.concatenate([plan.bias for plan in plans]))
        self.own_temperature = tensor(np.concatenate([plan.temperature for plan in plans]))

    def __len__(self) -> int:
        return len(self.rows)

    def pairs(self, units: Tensor, samples: Tensor, num_samples: int) -> Tensor:
        """(Q, G) residue and sample as one number, row * num_samples + sample, of Q choices in certain samples."""
        return self.rows[units] * num_samples + samples[:, None]

    def combined(self, logits: Tensor, units: Tensor) -> Tensor:
        """Biased logits of choices, in float64.

        Parameters
        ----------
        logits : (Q, G, 20) of the residues of Q choices
        units : (Q,)

        Returns
        -------
        (Q, 20), minus infinity for omitted types
        """
        return (logits.double() * self.weights[units][..., None]).sum(1) + self.bias[units]

    def tempered(self, biased: Tensor, units: Tensor, temperature: float) -> Tensor:
        """(Q, 20) probabilities at the choices' temperatures, at 0 all on the most probable type."""
        own = self.own_temperature[units]
        divisor = torch.where(own.isnan(), temperature, own)[:, None]
        greedy = torch.nn.functional.one_hot(biased.argmax(-1), NUM_RESIDUE_TYPES).double()
        # Relative to the largest: low temperatures do not overflow then.
        relative = biased - biased.amax(-1, keepdim=True)
        return torch.where(divisor == 0, greedy, (relative / torch.where(divisor == 0, 1.0, divisor)).softmax(-1))

    def drawn(self, biased: Tensor, units: Tensor, temperature: float, uniform: Tensor) -> Tensor:
        """(Q,) types for (Q,) uniform numbers."""
        return inverse_cdf(self.tempered(biased, units, temperature), uniform)


def _members(plan: DesignPlan) -> list[np.ndarray]:
    """Visible residues of each choice."""
    seen = np.flatnonzero((plan.unit >= 0) & plan.visible)
    order = seen[np.argsort(plan.unit[seen], kind="stable")]
    counts = np.bincount(plan.unit[seen], minlength=len(plan.bias))
    return np.split(order, np.cumsum(counts)[:-1]) if len(counts) else []
