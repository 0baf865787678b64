"""Substitution scores as a Markov chain, for the substitution kernel of the diffusion.

Gives plain nested lists, so that the model's configuration can hold them and the model needs no Biopython.
"""

from __future__ import annotations

import numpy as np
from Bio.Align import substitution_matrices

from ..model.configuration import RESIDUE_LETTERS

HALF_BIT = float(np.log(2) / 2)  # natural logarithms per unit of BLOSUM62 (Henikoff and Henikoff 1992)


def substitution_matrix_from_scores(scores: np.ndarray, scale: float) -> list[list[float]]:
    """Reversible substitution probabilities that have the given log-odds scores.

    A score is the logarithm of P(b | a) / p(b), where p are the residue frequencies. That the probabilities in every
    row sum to one then gives p: exp(scale * score) p = 1 (Yu, Wootton and Altschul 2003). The stationary distribution
    of P is p, up to its sum, which differs from one by the rounding of the scores.

    Parameters
    ----------
    scores : (types, types), symmetric
    scale : natural logarithms per unit of the scores

    Returns
    -------
    (types, types) row-stochastic, row a and column b hold P(b | a)

    Raises
    ------
    ValueError : the scores are not symmetric, or no positive frequencies go with them
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or scores.shape != scores.T.shape or not np.array_equal(scores, scores.T):
        raise ValueError("substitution scores must be a square, symmetric matrix")
    odds = np.exp(scale * scores)
    try:
        frequencies = np.linalg.solve(odds, np.ones(len(odds)))
    except np.linalg.LinAlgError as error:
        raise ValueError("these substitution scores do not determine residue frequencies") from error
    if not (frequencies > 0).all():
        raise ValueError(f"no positive residue frequencies go with these substitution scores at the scale {scale}")
    conditional = odds * frequencies
    return (conditional / conditional.sum(axis=1, keepdims=True)).tolist()


def blosum62_transition_matrix() -> list[list[float]]:
    """(20, 20) row-stochastic, reversible; rows and columns in the order of the model's residue letters."""
    blosum = substitution_matrices.load("BLOSUM62")
    letters = RESIDUE_LETTERS[:20]
    scores = np.array([[blosum[first, second] for second in letters] for first in letters])
    return substitution_matrix_from_scores(scores, HALF_BIT)
