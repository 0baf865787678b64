"""Discrete diffusion of residue sequences: corruption, exact posteriors, likelihood bounds.

Following Austin et al. 2021 (D3PM), with noise levels named by retention alpha bar so that sampling may take any steps.
Tokens 0 to 19 are residue types. Token 20 says "nothing is known here": an unknown residue, a masked one, or, for every
kernel, any residue at alpha bar = 0, where the corrupted type is independent of the clean one and hence carries nothing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .kernels import AbsorbingKernel, Kernel


class DiscreteDiffusion:
    """A corruption process with `num_steps` noise levels.

    Parameters
    ----------
    kernel : how residues are corrupted
    num_steps : T, the number of noise levels in training
    """

    def __init__(self, kernel: Kernel, num_steps: int):
        if num_steps < 1:
            raise ValueError(f"num_diffusion_steps must be at least 1, but is {num_steps}")
        self.kernel = kernel
        self.num_steps = num_steps
        self.absorbing = isinstance(kernel, AbsorbingKernel)
        self.no_information = kernel.num_types  # the token

    def alpha_bar(self, t: Tensor) -> Tensor:
        """Retention at times t from 0 to T, float64: 1 at 0, 0 at T.

        Linear for the absorbing kernel, so that the masked share is uniform; a squared cosine for the others, as of
        Nichol and Dhariwal 2021.
        """
        share = t.double() / self.num_steps
        if self.absorbing:
            return 1.0 - share
        return torch.where(share >= 1.0, 0.0, torch.cos(share * math.pi / 2).square())

    def noise_level(self, t: Tensor) -> Tensor:
        """1 - alpha bar, float32: what the decoder is told, whatever T is."""
        return (1.0 - self.alpha_bar(t)).float()

    def sample_times(self, count: int, fully_masked_fraction: float, generator: torch.Generator) -> Tensor:
        """Times for some structures, (count,) int64 from 1 to T.

        Uniform and stratified over the structures, but T itself for a share of them.

        Parameters
        ----------
        fully_masked_fraction : that share, 0 to 1
        """
        device = generator.device
        offset, order = torch.rand(1, generator=generator, device=device), torch.rand(
            count, generator=generator, device=device
        )
        strata = (order.argsort() + offset) / count
        times = (strata * self.num_steps).long().clamp(max=self.num_steps - 1) + 1
        fully = torch.rand(count, generator=generator, device=device) < fully_masked_fraction
        return torch.where(fully, self.num_steps, times)

    def corrupt(
        self, residue_type: Tensor, t: Tensor, structure_index: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Corrupt clean sequences.

        Parameters
        ----------
        residue_type : (N,) int64, token 20 where unknown
        t : (B,) int64 from 1 to T
        structure_index : (N,) int64

        Returns
        -------
        tokens : (N,) int64, with transition(alpha bar(t)) as probabilities
        scored : (N,) bool, known residues that a prediction is trained on: the masked ones, or all where the kernel has no
            mask
        """
        # One number per residue, always, so that draws do not depend on what is drawn from.
        uniform = torch.rand(len(residue_type), generator=generator, device=residue_type.device).double()
        known = residue_type < self.kernel.num_types
        alpha = self.alpha_bar(t)
        if self.absorbing:
            tokens = torch.where(uniform < alpha[structure_index], residue_type, self.no_information)
            return tokens, known & (tokens == self.no_information)
        rows = self.kernel.transition(alpha)[structure_index, residue_type.clamp(max=self.kernel.num_types - 1)]
        tokens = _inverse_cdf(rows, uniform)
        nothing = ~known | (alpha == 0)[structure_index]
        return torch.where(nothing, self.no_information, tokens), known

    def posterior(self, x_t: Tensor, x0_probabilities: Tensor, alpha_t: float, alpha_s: float) -> Tensor:
        """Where a residue was at a lower noise level, given where it is and what its clean type may be.

        q(x_s | x_t) = sum over x_0 of p(x_0) q(x_t | x_s) q(x_s | x_0) / q(x_t | x_0), Austin et al. 2021, eq. 3 and 4.

        Parameters
        ----------
        x_t : (N,) int64, tokens
        x0_probabilities : (N, types), rows sum to one; types from which x_t cannot come count for nothing
        alpha_t, alpha_s : retentions, 0 <= alpha_t < alpha_s <= 1

        Returns
        -------
        (N, states) float64, rows sum to one
        """
        types, states = self.kernel.num_types, self.kernel.num_states
        p0 = x0_probabilities.double()
        to_s = self.kernel.transition(torch.tensor(alpha_s, dtype=torch.float64, device=x_t.device))[:types]
        if alpha_t == 0.0:
            # x_t is independent of all before it, and the token that stands for it says so.
            return p0 @ to_s
        s_to_t = self.kernel.transition(torch.tensor(alpha_t / alpha_s, dtype=torch.float64, device=x_t.device))
        to_t = self.kernel.transition(torch.tensor(alpha_t, dtype=torch.float64, device=x_t.device))[:types]
        unknown = x_t >= states  # a kernel without a mask has no such state: as above, nothing is known
        column = x_t.clamp(max=states - 1)
        evidence = to_t[:, column].T  # (N, types), q(x_t | x_0)
        weight = torch.where(evidence > 0, p0 / evidence.clamp(min=torch.finfo(torch.float64).tiny), 0.0)
        joint = s_to_t[:, column].T * (weight @ to_s)
        total = joint.sum(-1, keepdim=True)
        # A prediction that rules out every type that x_t can come from says nothing; then x_t alone decides.
        alone = s_to_t[:, column].T * evidence.new_ones(1, types).div(types).matmul(to_s)
        joint = torch.where(total > 0, joint, alone)
        joint = joint / joint.sum(-1, keepdim=True)
        return torch.where(unknown[:, None], p0 @ to_s, joint)

    def bound_term(self, x0: Tensor, x_t: Tensor, x0_probabilities: Tensor, t: int) -> Tensor:
        """One term of the bound on the negative log-likelihood, (N,) nats.

        KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)); at t = 1 this is -log p(x_0 | x_1). The bound is the sum over t from 1
        to T, each averaged over x_t; the prior term is zero because alpha bar(T) = 0.

        Parameters
        ----------
        x0 : (N,) int64, clean types
        x_t : (N,) int64, tokens
        x0_probabilities : (N, types), the model's prediction from x_t
        t : 1 to T
        """
        alpha_t, alpha_s = self.alpha_bar(torch.tensor([t, t - 1])).tolist()
        exact = torch.nn.functional.one_hot(x0, self.kernel.num_types).double()
        true = self.posterior(x_t, exact, alpha_t, alpha_s)
        model = self.posterior(x_t, x0_probabilities, alpha_t, alpha_s)
        return torch.where(true > 0, true * (true.log() - model.log()), 0.0).sum(-1)


def order_agnostic_mask(
    structure_index: Tensor, scoreable: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw for the order-agnostic autoregressive likelihood (Uria et al. 2014; Hoogeboom et al. 2022).

    For each structure k is uniform in 1 to L, its number of scoreable residues, and k of these are masked, all subsets alike.
    L / k times the negative log-likelihood of the masked residues is then an unbiased estimate of that of the whole sequence,
    averaged over all orders of decoding one residue at a time.

    Parameters
    ----------
    structure_index : (N,) int64, non-decreasing
    scoreable : (N,) bool

    Returns
    -------
    masked : (N,) bool
    weight : (B,) float64, L / k; 0 for a structure without scoreable residues
    """
    device = structure_index.device
    count = int(structure_index[-1]) + 1
    sizes = torch.zeros(count, dtype=torch.float64, device=device).index_add(0, structure_index, scoreable.double())
    uniform = torch.rand(count, generator=generator, device=device).double()
    hidden = ((uniform * sizes).floor() + 1).minimum(sizes)
    key = torch.rand(len(structure_index), generator=generator, device=device).double()
    # Rank of every scoreable residue within its structure, by random key: structures are kept apart by whole numbers.
    order = (structure_index + torch.where(scoreable, key, 1.0)).argsort(stable=True)
    starts = torch.bincount(structure_index, minlength=count).cumsum(0).roll(1)
    starts[0] = 0
    rank = torch.empty_like(structure_index)
    rank[order] = torch.arange(len(order), device=device)
    masked = scoreable & (rank - starts[structure_index] < hidden[structure_index])
    return masked, torch.where(sizes > 0, sizes / hidden.clamp(min=1), 0.0)


def _inverse_cdf(probabilities: Tensor, uniform: Tensor) -> Tensor:
    cumulative = probabilities.cumsum(-1)
    drawn = torch.searchsorted(cumulative, (uniform * cumulative[:, -1])[:, None], right=True)[:, 0]
    return drawn.clamp(max=probabilities.shape[-1] - 1)
