"""How probable a model finds native sequences: all residues at once, in any order, or in a given number of steps.

`BackboneReader.masked` is the only place of the evaluation that shows a model native residues: those that the
definition of an order-agnostic likelihood takes for decoded already, never the ones that are asked for. Random numbers
belong to (seed, name of the structure, draw), so a figure does not depend on what else is evaluated beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch

from ..model.decoder import NUM_RESIDUE_TYPES
from ..model.decoding import SequenceDecoder
from ..model.modeling import ProteinModel
from ..randomness import numpy_generator
from ..structures import Structure
from .blinding import blinded
from .inputs import encode_separately
from .masked_logits import masked_logits
from .metrics import scored_residues
from .sampling import Sampler


@dataclass(frozen=True, eq=False)
class MaskedPredictions:
    """What a model predicts for the masked residues of one structure, in `D` draws of masks.

    Attributes
    ----------
    scored : number of residues that can be masked
    masked : (D, L) bool
    nll : (D, L) float32, nats of the native type; 0 where not masked
    predicted : (D, L) int8, the most probable type; 20 where not masked
    confidence : (D, L) float32, its probability; 0 where not masked
    """

    scored: int
    masked: np.ndarray
    nll: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray

    @property
    def share(self) -> np.ndarray:
        """(D,) masked residues / scored ones."""
        return np.asarray(self.masked.sum(axis=1) / max(self.scored, 1))

    @property
    def mean_nll(self) -> np.ndarray:
        """(D,) nats per masked residue, 0 where none is."""
        return np.asarray(self.nll.sum(axis=1, dtype=np.float64) / np.maximum(self.masked.sum(axis=1), 1))


class BackboneReader:
    """A model that has read the backbones of some structures, blinded, and answers for their sequences.

    Parameters
    ----------
    model : in evaluation mode
    structures : with the native types, which are looked up when the model is done, and shown where masks allow it

    What it says of a structure is the same, bit by bit, whatever the others are.
    """

    @torch.inference_mode()
    def __init__(self, model: ProteinModel, structures: Sequence[Structure]):
        self.structures = structures
        self._model = model
        self._hidden = [blinded(structure) for structure in structures]
        self._encoded = encode_separately(
            model, self._hidden, [structure.backbone_complete for structure in self._hidden]
        )
        self._device = self._encoded.residues.device
        self._decoder = SequenceDecoder(model.decoder, self._encoded)

    def sampler(self) -> Sampler:
        """For designs on the same backbones, without reading them again."""
        return Sampler(self._model, self._hidden, encoded=self._encoded)

    def one_shot(self) -> list[MaskedPredictions]:
        """Predict all scored residues at once from the backbone alone: one draw, in which all are masked."""
        masks = [scored_residues(structure)[None] for structure in self.structures]
        blank = [np.full(mask.shape, NUM_RESIDUE_TYPES) for mask in masks]
        return self._predict(blank, masks)

    def masked(self, masks: Sequence[np.ndarray]) -> list[MaskedPredictions]:
        """Predict masked residues from the backbone and the native types of the scored residues that are not masked.

        Parameters
        ----------
        masks : (D, L) bool for each structure, of scored residues only; the same D for all
        """
        shown = [
            np.where(mask | ~scored_residues(structure), NUM_RESIDUE_TYPES, structure.residue_type)
            for structure, mask in zip(self.structures, masks, strict=True)
        ]
        return self._predict(shown, masks)

    @torch.inference_mode()
    def _predict(self, tokens: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> list[MaskedPredictions]:
        """Look at what the model says of the masked residues when it is shown (D, L) tokens of each structure."""
        joined, masked = np.concatenate(tokens, axis=1), np.concatenate(masks, axis=1)
        scored = [int(scored_residues(structure).sum()) for structure in self.structures]
        # A structure of which nothing can be scored is as unknown as one that is masked whole.
        shares = [
            mask.sum(axis=1) / count if count else np.ones(len(mask)) for mask, count in zip(masks, scored, strict=True)
        ]
        levels = np.stack(shares, axis=1)
        native = np.concatenate([structure.residue_type for structure in self.structures]).astype(np.int64)
        nll = np.zeros(masked.shape, np.float32)
        predicted = np.full(masked.shape, NUM_RESIDUE_TYPES, np.int8)
        confidence = np.zeros(masked.shape, np.float32)
        for draws, places, logits in masked_logits(self._decoder, self._device, joined, masked, levels):
            log_probability = logits.log_softmax(-1).cpu().numpy()
            where = draws, places
            nll[where] = -log_probability[np.arange(len(places)), native[places]]
            predicted[where] = log_probability.argmax(axis=1)
            confidence[where] = np.exp(log_probability.max(axis=1, initial=-np.inf))
        ends = np.cumsum([len(structure) for structure in self.structures])[:-1]
        return [
            MaskedPredictions(count, *arrays)
            for count, *arrays in zip(
                scored, *(np.split(array, ends, axis=1) for array in (masked, nll, predicted, confidence)), strict=True
            )
        ]


def random_masks(structure: Structure, counts: Sequence[int], seed: int, purpose: str) -> np.ndarray:
    """Masks of given numbers of scored residues, all subsets of a size alike.

    Returns
    -------
    (len(counts), L) bool
    """
    scored = np.flatnonzero(scored_residues(structure))
    masks = np.zeros((len(counts), len(structure)), bool)
    for draw, (mask, count) in enumerate(zip(masks, counts, strict=True)):
        generator = numpy_generator(seed, purpose, structure.name, draw)
        mask[generator.permutation(scored)[:count]] = True
    return masks


def order_agnostic_masks(structure: Structure, draws: int, seed: int) -> np.ndarray:
    """Masks for the order-agnostic likelihood (Uria et al. 2014; Hoogeboom et al. 2022).

    The number of masked residues is uniform in 1 to L over all draws together, stratified: draw d has its number in the
    d-th of as many equal parts of that range, which makes the estimate no less unbiased and more precise.

    Returns
    -------
    (draws, L) bool
    """
    scored = int(scored_residues(structure).sum())
    strata = (np.arange(draws) + numpy_generator(seed, "masked share", structure.name).random(draws)) / draws
    counts = np.minimum((strata * scored).astype(np.int64) + 1, scored)
    return random_masks(structure, counts.tolist(), seed, "order")


def order_agnostic_nll(predictions: MaskedPredictions) -> tuple[float, float]:
    """Estimate of the negative log-likelihood of a whole sequence, averaged over all orders of decoding one by one.

    Each draw estimates it by L times the mean over the masked residues.

    Returns
    -------
    nats of the whole sequence · its Monte Carlo standard error from successive differences, which leave out that the
    mean loss goes up with the masked share (Wolter 2007, Introduction to Variance Estimation, section 8.2); NaN for a
    single draw
    """
    estimates = predictions.scored * predictions.mean_nll
    draws = len(estimates)
    if draws < 2:
        return float(estimates.mean()), math.nan
    variance = np.square(np.diff(estimates)).sum() / (2 * (draws - 1))
    return float(estimates.mean()), math.sqrt(variance / draws)


def order_agnostic_residue_nll(predictions: MaskedPredictions) -> np.ndarray:
    """(L,) float64: shares of the residues in the estimate of `order_agnostic_nll`, which they add up to."""
    masked = np.maximum(predictions.masked.sum(axis=1), 1)
    weight = predictions.scored / (masked * len(masked))
    return np.asarray((predictions.nll * weight[:, None]).sum(axis=0))


def stepwise_shares(step_counts: Sequence[int]) -> list[Fraction]:
    """Masked shares at which decoding in these numbers of steps makes its predictions, largest first."""
    return sorted({Fraction(left, steps) for steps in step_counts for left in range(1, steps + 1)}, reverse=True)


def stepwise_masks(structure: Structure, shares: Sequence[Fraction], seed: int) -> np.ndarray:
    """(len(shares), L) bool, a random mask of each share, rounded up to whole residues."""
    scored = int(scored_residues(structure).sum())
    return random_masks(structure, [math.ceil(share * scored) for share in shares], seed, "step")


def stepwise_nll(predictions: MaskedPredictions, shares: Sequence[Fraction], steps: int) -> float:
    """Estimate of the negative log-likelihood of a whole sequence that is decoded in random order in equal steps.

    A step predicts its residues independently of each other, given those of the steps before (Hoogeboom et al. 2022,
    section 3.1). Its expected loss is taken from all residues masked at that point, as any of them may be its next.

    Parameters
    ----------
    predictions : of masks from `stepwise_masks` with these shares
    shares : from `stepwise_shares`
    steps : one of the numbers that the shares were made for

    Returns
    -------
    nats of the whole sequence; 1 step is the one-shot likelihood
    """
    mean = dict(zip(shares, predictions.mean_nll.tolist(), strict=True))
    masked = [math.ceil(Fraction(left, steps) * predictions.scored) for left in range(steps + 1)]
    return sum((masked[left] - masked[left - 1]) * mean[Fraction(left, steps)] for left in range(1, steps + 1))


def stepwise_likelihoods(reader: BackboneReader, step_counts: Sequence[int], seed: int) -> np.ndarray:
    """Estimates of `stepwise_nll` for some numbers of steps, from the same masks.

    Parameters
    ----------
    reader : of a model with absorbing diffusion
    seed : of the masks

    Returns
    -------
    (len(step_counts), structures) nats
    """
    shares = stepwise_shares(step_counts)
    found = reader.masked([stepwise_masks(structure, shares, seed) for structure in reader.structures])
    return np.array([[stepwise_nll(prediction, shares, steps) for prediction in found] for steps in step_counts])
