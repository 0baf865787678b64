"""Reverse diffusion of kernels without a mask (uniform, substitution): every choice is drawn anew at each step.

Fixed residues are corrupted as training would have corrupted them, each step anew given the step before, because that
is all that a model of such a kernel has seen: their prediction is certainty, and the exact posterior does the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..model.decoding import SequenceDecoder
from ..model.diffusion import DiscreteDiffusion, inverse_cdf
from .choices import ChoiceBatch
from .constraints import NUM_RESIDUE_TYPES
from .unmasking import SampledSequences

NOTHING_KNOWN = NUM_RESIDUE_TYPES  # the token


class Resampling:
    """Ancestral sampler for kernels without a mask.

    Parameters
    ----------
    decoder : for the backbones of the choices
    diffusion : of the model
    choices : what is to be chosen
    lengths : residues of each structure
    """

    def __init__(
        self, decoder: SequenceDecoder, diffusion: DiscreteDiffusion, choices: ChoiceBatch, lengths: Sequence[int]
    ):
        self._decoder = decoder
        self._diffusion = diffusion
        self._choices = choices
        self._row_starts = np.cumsum([0, *lengths]).tolist()
        self._unit_starts = np.cumsum([0, *choices.sizes]).tolist()
        self._fixed_rows = (choices.fixed_tokens != NOTHING_KNOWN).nonzero()[:, 0]

    def run(
        self,
        sequences: SampledSequences,
        generators: Sequence[Sequence[np.random.Generator]],
        temperature: float,
        num_steps: int | None,
    ) -> None:
        """Sample.

        Parameters
        ----------
        sequences : changed in place
        generators : of random numbers, one for each sample of each structure
        temperature : where a choice has none of its own
        num_steps : None for as many as there are choices
        """
        choices, device = self._choices, sequences.tokens.device
        samples = sequences.tokens.shape[1]
        steps = [max(1, size) if num_steps is None else num_steps for size in choices.sizes]
        ladders = [
            self._diffusion.alpha_bar(torch.linspace(self._diffusion.num_steps, 0, n + 1, dtype=torch.float64)).tolist()
            for n in steps
        ]
        sequences.tokens.fill_(NOTHING_KNOWN)
        for step in range(max(steps)):
            running = [index for index, count in enumerate(steps) if step < count]
            units = torch.cat([torch.arange(*self._unit_starts[i : i + 2], device=device) for i in running])
            chosen = (units[:, None] * samples + torch.arange(samples, device=device)).flatten()
            level = [[1.0 - ladder[min(step, len(ladder) - 1)]] for ladder in ladders]
            pairs = choices.pairs(chosen // samples, chosen % samples, samples)
            unique, place = pairs.flatten().unique(return_inverse=True)
            levels = torch.tensor(level, device=device).repeat(1, samples)
            own = self._decoder.logits(sequences.tokens, levels, unique)[place].view(*pairs.shape, -1)
            biased = choices.combined(own, chosen // samples)
            clean = choices.tempered(biased, chosen // samples, temperature)
            types = sequences.unit_type.view(-1)
            first = 0
            for index in running:
                uniform = self._uniform(
                    generators[index], self._row_starts[index + 1] - self._row_starts[index], device
                )
                alpha_t, alpha_s = ladders[index][step : step + 2]
                last = first + (self._unit_starts[index + 1] - self._unit_starts[index]) * samples
                part = chosen[first:last]
                at = torch.from_numpy(choices.leaders)[part.cpu() // samples].to(device) - self._row_starts[index]
                posterior = self._diffusion.posterior(types[part], clean[first:last], alpha_t, alpha_s)
                types[part] = inverse_cdf(posterior, uniform[at, part % samples])
                self._corrupt_fixed(sequences, index, alpha_t, alpha_s, uniform)
                first = last
            each = types[chosen][:, None].expand_as(pairs)
            sequences.tokens.view(-1)[pairs] = each
            # Every residue is drawn anew at each step, so the last prediction is the one that decided.
            sequences.log_probability.view(-1)[pairs] = own.log_softmax(-1).gather(-1, each[..., None])[..., 0]
            certainty = biased.softmax(-1).gather(-1, types[chosen][:, None])[:, 0]
            sequences.certainty.view(-1)[chosen] = certainty

    def _corrupt_fixed(
        self, sequences: SampledSequences, index: int, alpha_t: float, alpha_s: float, uniform: Tensor
    ) -> None:
        first, last = self._row_starts[index : index + 2]
        rows = self._fixed_rows[(self._fixed_rows >= first) & (self._fixed_rows < last)]
        tokens = sequences.tokens[rows]
        types = self._choices.fixed_tokens[rows]
        exact = functional.one_hot(types, NUM_RESIDUE_TYPES).double()[:, None].expand(*tokens.shape, -1)
        posterior = self._diffusion.posterior(tokens.flatten(), exact.flatten(0, 1), alpha_t, alpha_s)
        drawn = inverse_cdf(posterior, uniform[rows - first].flatten())
        sequences.tokens[rows] = drawn.view_as(tokens)

    @staticmethod
    def _uniform(generators: Sequence[np.random.Generator], length: int, device: torch.device) -> Tensor:
        """(L, S) numbers of the next step."""
        return torch.from_numpy(np.stack([generator.random(length) for generator in generators], axis=1)).to(device)
