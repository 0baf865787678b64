"""Discrete diffusion of residue sequences: corruption, exact posteriors, likelihood bounds.

Following Austin et al. 2021 (D3PM), with noise levels named by retention alpha bar so that sampling may take any steps.
Tokens 0 to 19 are residue types. Token 20 says "nothing is known here": an unknown residue, a masked one, or, for every
kernel, any residue at alpha bar = 0, where the corrupted type is independent of the clean one and carries nothing.
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
        """Retention at integer or fractional times t from 0 to T, float64: exactly 1 at 0 and 0 at T.

        Linear for the absorbing kernel, so that the masked share is uniform; a squared cosine for the others, as of
        Nichol and Dhariwal 2021.
        """
        share = t.double() / self.num_steps
        if self.absorbing:
            return 1.0 - share
        # The cosine of the rounded pi / 2 is not quite 0, and only 0 itself means that nothing is known.
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
        generator : on the device that the times are wanted on
        """
        device = generator.device
        offset = torch.rand(1, generator=generator, device=device, dtype=torch.float64)
        order = torch.rand(count, generator=generator, device=device, dtype=torch.float64).argsort()
        strata = (order + offset) / count
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
        generator : on the device of the tensors

        Returns
        -------
        tokens : (N,) int64, with transition(alpha bar(t)) as probabilities; token 20 everywhere at t = T
        scored : (N,) bool, known residues that a prediction is trained on: the masked ones, or all where the kernel has
            no mask
        """
        # One number per residue, always, so that draws do not depend on what is drawn from.
        uniform = torch.rand(len(residue_type), generator=generator, device=residue_type.device, dtype=torch.float64)
        known = residue_type < self.kernel.num_types
        alpha = self.alpha_bar(t)
        if self.absorbing:
            tokens = torch.where(uniform < alpha[structure_index], residue_type, self.no_information)
            return tokens, known & (tokens == self.no_information)
        rows = self.kernel.transition(alpha)[structure_index, residue_type.clamp(max=self.kernel.num_types - 1)]
        tokens = inverse_cdf(rows, uniform)
        # At T a drawn type would say nothing of the clean one; the token spares the model from having to learn that.
        nothing = ~known | (alpha == 0)[structure_index]
        return torch.where(nothing, self.no_information, tokens), known

    def posterior(self, x_t: Tensor, x0_probabilities: Tensor, alpha_t: float, alpha_s: float) -> Tensor:
        """Where a residue was at a lower noise level, given where it is and what its clean type may be.

        q(x_s | x_t) = sum over x_0 of p(x_0) q(x_t | x_s) q(x_s | x_0) / q(x_t | x_0), Austin et al. 2021, eq. 3 and 4.
        Matrices go from row to column: q(x_t | x_s) is a column of the matrix from s to t, and q(x_s | x_0) a row.

        Parameters
        ----------
        x_t : (N,) int64, tokens; 20 under a kernel without a mask is a residue of which nothing is known
        x0_probabilities : (N, types), any floating type, rows with a positive sum; types from which x_t cannot come
            count for nothing
        alpha_t, alpha_s : retentions, 0 <= alpha_t < alpha_s <= 1

        Returns
        -------
        (N, states) float64, rows sum to one

        Raises
        ------
        ValueError : the retentions are out of order
        """
        if not 0.0 <= alpha_t < alpha_s <= 1.0:
            raise ValueError(f"retentions must be 0 <= alpha_t < alpha_s <= 1, but are {alpha_t} and {alpha_s}")
        types, states = self.kernel.num_types, self.kernel.num_states
        p0 = x0_probabilities.double()
        p0 = p0 / p0.sum(-1, keepdim=True)  # a softmax in float32 or bfloat16 is off by more than float64 should show
        to_s = self.kernel.transition(torch.tensor(alpha_s, dtype=torch.float64, device=x_t.device))[:types]
        if alpha_t == 0.0:
            # x_t is independent of all before it, and the token that stands for it says so.
            return p0 @ to_s
        s_to_t = self.kernel.transition(torch.tensor(alpha_t / alpha_s, dtype=torch.float64, device=x_t.device))
        to_t = self.kernel.transition(torch.tensor(alpha_t, dtype=torch.float64, device=x_t.device))[:types]
        unknown = x_t >= states  # a kernel without a mask has no such state: as above, nothing is known
        column = x_t.clamp(max=states - 1)
        # Per residue only ratios count; relative to the largest, retentions next to zero neither overflow nor vanish.
        evidence = _relative(to_t[:, column].T)  # (N, types), q(x_t | x_0)
        step = _relative(s_to_t[:, column].T)  # (N, states), q(x_t | x_s)
        possible = evidence > 0
        weight = torch.where(possible, p0 / torch.where(possible, evidence, 1.0), 0.0)
        joint = step * (weight @ to_s)
        total = joint.sum(-1, keepdim=True)
        # A prediction that rules out every type that x_t can come from says nothing; then x_t alone decides.
        alone = step * to_s.mean(0)
        joint = torch.where(total > 0, joint, alone)
        joint = joint / joint.sum(-1, keepdim=True)
        return torch.where(unknown[:, None], p0 @ to_s, joint)

    def bound_term(self, x0: Tensor, x_t: Tensor, x0_probabilities: Tensor, t: int) -> Tensor:
        """One term of the bound on the negative log-likelihood, (N,) nats.

        KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)); at t = 1 this is -log p(x_0 | x_1). The bound is the sum over t
        from 1 to T, each averaged over x_t; the prior term is zero because alpha bar(T) = 0.

        Parameters
        ----------
        x0 : (N,) int64, clean types; unknown residues (20) cost nothing
        x_t : (N,) int64, tokens
        x0_probabilities : (N, types), the model's prediction from x_t
        t : 1 to T
        """
        alpha_t, alpha_s = self.alpha_bar(torch.tensor([t, t - 1])).tolist()
        types = self.kernel.num_types
        exact = torch.nn.functional.one_hot(x0.clamp(max=types - 1), types).double()
        true = self.posterior(x_t, exact, alpha_t, alpha_s)
        model = self.posterior(x_t, x0_probabilities, alpha_t, alpha_s)
        # Terms of probability zero are taken out before the logarithm: their gradients would be NaN.
        possible = true > 0
        ratio = torch.where(possible, true, 1.0).log() - torch.where(possible, model, 1.0).log()
        return torch.where(x0 < types, (true * ratio).sum(-1), 0.0)


def order_agnostic_mask(
    structure_index: Tensor, scoreable: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw for the order-agnostic autoregressive likelihood (Uria et al. 2014; Hoogeboom et al. 2022).

    For each structure k is uniform in 1 to L, its number of scoreable residues, and k of these are masked, all subsets
    alike. L / k times the negative log-likelihood of the masked residues is then an unbiased estimate of that of the
    whole sequence, averaged over all orders of decoding one residue at a time.

    Parameters
    ----------
    structure_index : (N,) int64, non-decreasing
    scoreable : (N,) bool
    generator : on the device of the tensors

    Returns
    -------
    masked : (N,) bool
    weight : (B,) float64, L / k; 0 for a structure without scoreable residues
    """
    device = structure_index.device
    count = int(structure_index[-1]) + 1
    sizes = torch.zeros(count, dtype=torch.float64, device=device).index_add(0, structure_index, scoreable.double())
    uniform = torch.rand(count, generator=generator, device=device, dtype=torch.float64)
    hidden = ((uniform * sizes).floor() + 1).minimum(sizes)
    key = torch.rand(len(structure_index), generator=generator, device=device, dtype=torch.float64)
    # Rank of every scoreable residue within its structure, by random key: structures are kept apart by whole numbers.
    order = (structure_index + torch.where(scoreable, key, 1.0)).argsort(stable=True)
    starts = torch.bincount(structure_index, minlength=count).cumsum(0).roll(1)
    starts[0] = 0
    rank = torch.empty_like(structure_index)
    rank[order] = torch.arange(len(order), device=device)
    masked = scoreable & (rank - starts[structure_index] < hidden[structure_index])
    return masked, torch.where(sizes > 0, sizes / hidden.clamp(min=1), 0.0)


def inverse_cdf(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Categorical draws from given uniform numbers.

    Parameters
    ----------
    probabilities : (..., K), rows with a positive sum
    uniform : (...), from 0 to 1, 1 excluded

    Returns
    -------
    (...) int64, 0 to K - 1, never a class of probability zero
    """
    cumulative = probabilities.double().cumsum(-1)
    # Rounding could lift the product up to the total, where no class is left but perhaps an empty one.
    total = cumulative[..., -1]
    threshold = torch.minimum(uniform.double() * total, total.nextafter(torch.zeros_like(total)))
    return torch.searchsorted(cumulative, threshold[..., None], right=True)[..., 0]


def _relative(values: Tensor) -> Tensor:
    return values / values.amax(-1, keepdim=True)
