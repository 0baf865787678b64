"""Reverse diffusion of the absorbing kernel: masked residues get their types, some at each step.

Random numbers come from outside, one for the place in the order and one for the type of each choice, so that nothing
here depends on how many were drawn before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ..model.decoding import SequenceDecoder
from .choices import ChoiceBatch
from .constraints import NUM_RESIDUE_TYPES
from .orders import MODEL_ORDERS, ancestral_steps, counts_done, random_order_steps, steps_for

MASK = NUM_RESIDUE_TYPES  # the token


@dataclass
class SampledSequences:
    """`S` sequences in the making on `N` residues, `U` choices each.

    Attributes
    ----------
    tokens : (N, S) int64, what the model sees
    unit_type : (U, S) int64, types of the choices
    certainty : (U, S) float64, probability of that type when it was chosen, at temperature 1, biases included
    log_probability : (N, S) float32, of that type at each residue by itself, at temperature 1, without biases
    """

    tokens: Tensor
    unit_type: Tensor
    certainty: Tensor
    log_probability: Tensor


def empty_sequences(choices: ChoiceBatch, samples: int, show_fixed: bool) -> SampledSequences:
    """Sequences of which nothing is known but the fixed residues, or nothing at all."""
    tokens = choices.fixed_tokens[:, None].repeat(1, samples)
    shape, device = (len(choices), samples), tokens.device
    return SampledSequences(
        tokens=tokens if show_fixed else torch.full_like(tokens, MASK),
        unit_type=torch.full(shape, MASK, device=device),
        certainty=torch.zeros(shape, dtype=torch.float64, device=device),
        log_probability=torch.zeros(tokens.shape, device=device),
    )


class Unmasking:
    """Sampler for the absorbing kernel, and, with one step, for models that predict all residues in one pass.

    Parameters
    ----------
    decoder : for the backbones of the choices
    choices : what is to be chosen
    lengths : residues of each structure
    """

    def __init__(self, decoder: SequenceDecoder, choices: ChoiceBatch, lengths: Sequence[int]):
        self._decoder = decoder
        self._choices = choices
        structure = np.repeat(np.arange(len(lengths)), lengths)
        self._structure_of_row = torch.from_numpy(structure).to(choices.visible.device)
        self._num_structures = len(lengths)
        # Fixed residues of unknown type are never shown, as in training, where they do not count as masked either.
        self._maskable = choices.visible & ~choices.unknown
        self._maskable_count = self._per_structure(self._maskable[:, None])

    def run(
        self,
        sequences: SampledSequences,
        uniform: np.ndarray,
        temperature: float,
        num_steps: int | None,
        order: str,
        remask: float = 0.0,
    ) -> None:
        """Make all choices.

        Parameters
        ----------
        sequences : changed in place
        uniform : (4, U, S) float64, order and type of each choice, and the same for when it is made again
        temperature : where a choice has none of its own
        num_steps : None for one choice at a time
        order : one of `orders.ORDERS`
        remask : share of the choices, the least probable ones, that are made again when all are made
        """
        todo = np.ones(uniform.shape[1:], bool)
        steps = [steps_for(size, num_steps) for size in self._choices.sizes]
        self._choose_all(sequences, todo, uniform[:2], temperature, steps, order)
        if remask:
            repeated = [round(remask * size) for size in self._choices.sizes]
            steps = [
                steps_for(number, None if num_steps is None else max(1, round(remask * step)))
                for number, step in zip(repeated, steps, strict=True)
            ]
            again = self._mask_least_certain(sequences, repeated)
            self._choose_all(sequences, again, uniform[2:], temperature, steps, order)

    def _choose_all(
        self,
        sequences: SampledSequences,
        todo: np.ndarray,
        uniform: np.ndarray,
        temperature: float,
        steps: Sequence[int],
        order: str,
    ) -> None:
        """Make the choices `todo` (U, S), equally many in all samples of a structure, in `steps` of each structure."""
        numbers = torch.from_numpy(uniform[1]).to(sequences.tokens.device).flatten()
        if order in MODEL_ORDERS:
            self._in_order_of_model(sequences, todo, numbers, temperature, steps, order)
            return
        step_of = np.concatenate([
            ancestral_steps(u, t, count) if order == "ancestral" else random_order_steps(u, t, count)
            for u, t, count in zip(self._by_structure(uniform[0]), self._by_structure(todo), steps, strict=True)
        ]).ravel()  # fmt: skip
        by_step = np.argsort(step_of, kind="stable")
        bounds = np.searchsorted(step_of[by_step], np.arange(max(steps) + 1)).tolist()
        chosen = torch.from_numpy(by_step).to(sequences.tokens.device)
        masked_at_first = self._masked_share(sequences.tokens)
        share_of_step = 1.0 / torch.tensor(steps, device=sequences.tokens.device)[:, None]
        for step, (first, last) in enumerate(pairwise(bounds)):
            if first == last:
                continue
            if order == "ancestral":
                level = masked_at_first * (1.0 - step * share_of_step).clamp(min=0)
            else:
                level = self._masked_share(sequences.tokens)
            self._make(sequences, chosen[first:last], level, numbers, temperature)

    def _in_order_of_model(
        self,
        sequences: SampledSequences,
        todo: np.ndarray,
        numbers: Tensor,
        temperature: float,
        steps: Sequence[int],
        order: str,
    ) -> None:
        device = sequences.tokens.device
        left = torch.from_numpy(todo).to(device).flatten()
        samples = todo.shape[1]
        totals = [int(part[:, 0].sum()) for part in self._by_structure(todo)]
        done = [counts_done(total, count) for total, count in zip(totals, steps, strict=True)]
        for step in range(max(steps)):
            counts = [int(row[step + 1] - row[step]) if step < len(row) - 1 else 0 for row in done]
            candidates = left.nonzero()[:, 0]
            units, sample = candidates // samples, candidates % samples
            structure = self._choices.structure[units]
            wanted = torch.tensor(counts, device=device)[structure]
            if step < max(steps) - 1 and min(counts) == 0:  # structures that are through cost nothing
                open_now = wanted > 0
                candidates, units, sample, structure, wanted = (
                    part[open_now] for part in (candidates, units, sample, structure, wanted)
                )
            biased, own = self._logits(sequences, candidates, self._masked_share(sequences.tokens))
            probabilities = biased.softmax(-1)
            best = probabilities.topk(2, dim=-1).values
            key = best[:, 0] - best[:, 1] if order == "margin" else best[:, 0]
            first = _first_of_segments(structure * samples + sample, key, wanted)
            self._set(sequences, candidates[first], biased[first], own[first], numbers, temperature)
            left[candidates[first]] = False

    def _make(
        self, sequences: SampledSequences, chosen: Tensor, level: Tensor, numbers: Tensor, temperature: float
    ) -> None:
        biased, own = self._logits(sequences, chosen, level)
        self._set(sequences, chosen, biased, own, numbers, temperature)

    def _logits(self, sequences: SampledSequences, chosen: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """Biased logits (Q, 20) of choices, ascending, and logits (Q, G, 20) of their residues."""
        samples = sequences.tokens.shape[1]
        units, sample = chosen // samples, chosen % samples
        pairs = self._choices.pairs(units, sample, samples)
        if pairs.shape[1] == 1 and bool((pairs[1:, 0] > pairs[:-1, 0]).all()):
            own = self._decoder.logits(sequences.tokens, level.float(), pairs[:, 0])[:, None]
        else:
            unique, place = pairs.flatten().unique(return_inverse=True)
            own = self._decoder.logits(sequences.tokens, level.float(), unique)[place].view(*pairs.shape, -1)
        return self._choices.combined(own, units), own

    def _set(
        self,
        sequences: SampledSequences,
        chosen: Tensor,
        biased: Tensor,
        own: Tensor,
        numbers: Tensor,
        temperature: float,
    ) -> None:
        samples = sequences.tokens.shape[1]
        units, sample = chosen // samples, chosen % samples
        types = self._choices.drawn(biased, units, temperature, numbers[chosen])
        sequences.unit_type.view(-1)[chosen] = types
        sequences.certainty.view(-1)[chosen] = biased.softmax(-1).gather(-1, types[:, None])[:, 0]
        pairs = self._choices.pairs(units, sample, samples)
        each = types[:, None].expand_as(pairs)
        sequences.tokens.view(-1)[pairs] = each
        sequences.log_probability.view(-1)[pairs] = own.log_softmax(-1).gather(-1, each[..., None])[..., 0]

    def _mask_least_certain(self, sequences: SampledSequences, counts: Sequence[int]) -> np.ndarray:
        """Mask that many choices of each structure. Returns which, (U, S) bool."""
        samples = sequences.tokens.shape[1]
        every = torch.arange(sequences.unit_type.numel(), device=sequences.tokens.device)
        structure = self._choices.structure[every // samples]
        wanted = torch.tensor(counts, device=every.device)[structure]
        segment = structure * samples + every % samples
        again = _first_of_segments(segment, -sequences.certainty.flatten(), wanted)
        pairs = self._choices.pairs(again // samples, again % samples, samples)
        sequences.tokens.view(-1)[pairs] = MASK
        chosen = torch.zeros(sequences.unit_type.shape, dtype=torch.bool, device=every.device)
        chosen.view(-1)[again] = True
        return chosen.cpu().numpy()

    def _masked_share(self, tokens: Tensor) -> Tensor:
        """(B, S) float64, share of the residues of known or coming type of which the model is shown nothing."""
        return self._per_structure((tokens == MASK) & self._maskable[:, None]) / self._maskable_count.clamp(min=1)

    def _per_structure(self, flags: Tensor) -> Tensor:
        """(N, S) bool -> (B, S) float64, how many are true."""
        sums = torch.zeros(self._num_structures, flags.shape[1], dtype=torch.float64, device=flags.device)
        return sums.index_add_(0, self._structure_of_row, flags.double())

    def _by_structure(self, array: np.ndarray) -> list[np.ndarray]:
        """(U, ...) cut into the choices of each structure."""
        return np.split(array, np.cumsum(self._choices.sizes)[:-1])


def _first_of_segments(segment: Tensor, key: Tensor, counts: Tensor) -> Tensor:
    """Indices, ascending, of the elements with the largest keys of each segment.

    Parameters
    ----------
    segment : (Q,) int64
    key : (Q,); of equal ones the first counts as the largest
    counts : (Q,) int64, how many of the element's segment are wanted
    """
    order = key.argsort(descending=True, stable=True)
    order = order[segment[order].argsort(stable=True)]
    sizes = torch.bincount(segment)
    starts = sizes.cumsum(0) - sizes
    rank = torch.arange(len(order), device=order.device) - starts[segment[order]]
    return order[rank < counts[order]].sort().values
