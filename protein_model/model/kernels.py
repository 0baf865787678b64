"""How residues are corrupted: reversible Markov chains over residue types, exact for any amount of noise.

A kernel is parametrised by retention alpha, 1 for clean and 0 for nothing left. `transition(alpha)` is a matrix of
probabilities from row to column, and transition(a) @ transition(b) = transition(a * b), so going from any noise level
to any other takes one product instead of many steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

NUM_RESIDUE_TYPES = 20


class Kernel:
    """A family of transition matrices.

    Attributes
    ----------
    num_types : clean residue types; these are states 0 to num_types - 1
    num_states : all states; the absorbing kernel has one more, the mask
    """

    num_types: int
    num_states: int

    def transition(self, alpha: Tensor) -> Tensor:
        """alpha (...) from 0 to 1 -> (..., num_states, num_states) float64, rows sum to one."""
        raise NotImplementedError


class AbsorbingKernel(Kernel):
    """A residue is kept with probability alpha and masked otherwise (Austin et al. 2021)."""

    def __init__(self, num_types: int = NUM_RESIDUE_TYPES):
        self.num_types = num_types
        self.num_states = num_types + 1

    def transition(self, alpha: Tensor) -> Tensor:
        alpha = alpha.double()[..., None, None]
        mask = torch.zeros(self.num_states, self.num_states, dtype=torch.float64, device=alpha.device)
        mask[:, -1] = 1.0
        return alpha * torch.eye(self.num_states, dtype=torch.float64, device=alpha.device) + (1 - alpha) * mask


class UniformKernel(Kernel):
    """A residue is kept with probability alpha and otherwise replaced by any type (Hoogeboom et al. 2021)."""

    def __init__(self, num_types: int = NUM_RESIDUE_TYPES):
        self.num_types = self.num_states = num_types

    def transition(self, alpha: Tensor) -> Tensor:
        alpha = alpha.double()[..., None, None]
        identity = torch.eye(self.num_types, dtype=torch.float64, device=alpha.device)
        return alpha * identity + (1 - alpha) / self.num_types


class SubstitutionKernel(Kernel):
    """Residues are replaced as evolution replaces them.

    The chain has the generator P - 1 for a reversible row-stochastic matrix P. With the symmetric form of P diagonalised,
    its transition matrix at retention alpha is V diag(alpha ** -lambda) V^-1, where lambda <= 0 are the eigenvalues of the
    generator; what remains at alpha = 0 is the stationary distribution.

    Parameters
    ----------
    matrix : (types, types), P

    Raises
    ------
    ValueError : a row does not sum to one, or P is not reversible
    """

    def __init__(self, matrix: list[list[float]]):
        conditional = torch.tensor(matrix, dtype=torch.float64, device="cpu")
        self.num_types = self.num_states = len(conditional)
        if not torch.allclose(conditional.sum(1), torch.ones(self.num_types, dtype=torch.float64)):
            raise ValueError("the rows of a substitution matrix must sum to one")
        stationary = torch.linalg.matrix_power(conditional, 4096)[0]
        flow = stationary[:, None] * conditional
        if not torch.allclose(flow, flow.T, atol=1e-9):
            raise ValueError("a substitution matrix must be reversible: p(a) P(a, b) = p(b) P(b, a)")
        root = stationary.sqrt()
        symmetric = root[:, None] * conditional / root
        values, vectors = torch.linalg.eigh((symmetric + symmetric.T) / 2)
        self._exponents = (1.0 - values).clamp(min=0)
        self._exponents[self._exponents < 1e-9] = 0.0  # the stationary part must stay where it is
        self._left = vectors / root[:, None]
        self._right = vectors.T * root

    def transition(self, alpha: Tensor) -> Tensor:
        exponents, left, right = (part.to(alpha.device) for part in (self._exponents, self._left, self._right))
        powers = alpha.double()[..., None] ** exponents  # 0 ** 0 is 1
        matrix = ((left * powers[..., None, :]) @ right).clamp(min=0)  # rounding leaves tiny negative numbers
        return matrix / matrix.sum(-1, keepdim=True)


def build_kernel(name: str, substitution_matrix: list[list[float]] | None) -> Kernel:
    """The kernel of that name.

    Raises
    ------
    ValueError : there is no such kernel, or the substitution kernel has no matrix
    """
    if name == "absorbing":
        return AbsorbingKernel()
    if name == "uniform":
        return UniformKernel()
    if name == "substitution" and substitution_matrix is not None:
        return SubstitutionKernel(substitution_matrix)
    raise ValueError(f"no diffusion kernel {name!r}, or a substitution kernel without a matrix")
