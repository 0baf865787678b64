"""BLOSUM62 as a Markov chain of substitutions, for the substitution kernel of the diffusion."""

from __future__ import annotations

import numpy as np
from Bio.Align import substitution_matrices

from ..model.configuration import RESIDUE_LETTERS

HALF_BIT = np.log(2) / 2  # natural logarithms per unit of BLOSUM62 (Henikoff and Henikoff 1992)


def blosum62_transition_matrix() -> list[list[float]]:
    """(20, 20) row-stochastic, reversible; rows and columns in the order of the model's residue letters.

    A score is the logarithm of p(a, b) / (p(a) p(b)), so exp(score) p = 1 gives the residue frequencies p that the matrix
    itself implies (Yu and Altschul 2005), and these the joint probabilities.
    """
    blosum = substitution_matrices.load("BLOSUM62")
    letters = RESIDUE_LETTERS[:20]
    odds = np.exp(HALF_BIT * np.array([[blosum[a, b] for b in letters] for a in letters]))
    frequencies = np.linalg.solve(odds, np.ones(20))
    joint = frequencies[:, None] * odds * frequencies
    return (joint / joint.sum(axis=1, keepdims=True)).tolist()
