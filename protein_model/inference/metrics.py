"""How well predictions agree with native sequences, by the definitions that the field uses."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..structures import UNKNOWN_RESIDUE, Structure


def scored_residues(structure: Structure) -> np.ndarray:
    """(N,) bool, residues that a prediction can be right or wrong about: complete backbone, known native type."""
    return structure.backbone_complete & (structure.residue_type != UNKNOWN_RESIDUE)


def recovery(designed: np.ndarray, structure: Structure) -> np.ndarray:
    """Share of scored residues equal to the native ones, for each sample; NaN where no residue is scored.

    Parameters
    ----------
    designed : (samples, N) residue types
    structure : with the native types
    """
    scored = scored_residues(structure)
    if not scored.any():
        return np.full(len(designed), np.nan)
    return (designed[:, scored] == structure.residue_type[scored]).mean(axis=1)


def perplexity(nll: Sequence[float], residues: Sequence[int]) -> float:
    """exp(total negative log-likelihood in nats / residues) over a whole set; NaN for an empty one."""
    total = sum(residues)
    return math.exp(sum(nll) / total) if total else math.nan
