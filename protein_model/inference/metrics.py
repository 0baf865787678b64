"""How well predictions agree with native sequences, by the definitions that the field uses, and how sure a figure is.

Plain arrays in, numbers out; which residues and which structures they are taken over is left to `evaluation_report`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..structures import UNKNOWN_RESIDUE, Structure

NUM_TYPES = UNKNOWN_RESIDUE  # the twenty
BOOTSTRAP_RESAMPLES = 2000
CONFIDENCE = 0.95  # of all intervals
CALIBRATION_BINS = 10


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


class Estimate(NamedTuple):
    """A figure over a set of structures, with the interval in which it would be for other such sets.

    Attributes
    ----------
    value : of the set itself
    low, high : bounds of its 95 % bootstrap interval; NaN where no value can be told
    """

    value: float
    low: float
    high: float


class Bootstrap:
    """Percentile bootstrap over structures (Efron and Tibshirani 1993, chapter 13), residues of one staying together.

    The same resamples serve all figures of a report.

    Parameters
    ----------
    count : structures S
    seed : of the resamples
    """

    def __init__(self, count: int, seed: int, resamples: int = BOOTSTRAP_RESAMPLES):
        self.count = count
        generator = np.random.Generator(np.random.PCG64(seed))
        self._drawn = generator.integers(max(count, 1), size=(resamples, count), dtype=np.int32)
        # How often each structure was drawn: sums over resamples are then products of matrices.
        self._times = np.stack([np.bincount(rows, minlength=count) for rows in self._drawn]).astype(np.float64)

    def mean(self, values: np.ndarray) -> Estimate:
        """Mean of (S,) values of the structures."""
        return self.ratio(values, np.ones(self.count))

    def median(self, values: np.ndarray) -> Estimate:
        """Median of (S,) values of the structures."""
        if not self.count:
            return Estimate(math.nan, math.nan, math.nan)
        return _estimate(float(np.median(values)), np.median(values[self._drawn], axis=1))

    def ratio(self, numerators: np.ndarray, denominators: np.ndarray) -> Estimate:
        """Sum of (S,) numerators over sum of (S,) denominators, such as recovered residues over residues."""
        total = float(denominators.sum())
        if not total:
            return Estimate(math.nan, math.nan, math.nan)
        above, below = self._times @ numerators, self._times @ denominators
        return _estimate(float(numerators.sum()) / total, above[below > 0] / below[below > 0])

    def perplexity(self, nll: np.ndarray, residues: np.ndarray) -> Estimate:
        """exp of the ratio of (S,) nats to (S,) residues."""
        return Estimate(*map(_exponential, self.ratio(nll, residues)))


def _estimate(value: float, resampled: np.ndarray) -> Estimate:
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(resampled, [tail, 1.0 - tail]) if len(resampled) else (math.nan, math.nan)
    return Estimate(value, float(low), float(high))


def _exponential(value: float) -> float:
    return math.exp(value) if value < 700.0 else math.inf


def confusion_matrix(native: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Counts of (native, predicted) residue types.

    Parameters
    ----------
    native : (R,) types, 0 to 19
    predicted : (R,) or (samples, R) types, 0 to 20; 20 is no prediction

    Returns
    -------
    (20, 21) int64, rows native, columns predicted, the last column for no prediction
    """
    columns = NUM_TYPES + 1
    pairs = native.astype(np.int64) * columns + predicted.astype(np.int64)
    return np.bincount(pairs.ravel(), minlength=NUM_TYPES * columns).reshape(NUM_TYPES, columns)


@dataclass(frozen=True)
class Calibration:
    """How far the probability of the most probable type is the share of times that it is right (Guo et al. 2017).

    Attributes
    ----------
    edges : (bins + 1,) of the probability bins, from 0 to 1
    count : (bins,) predictions in each bin
    confidence : (bins,) mean probability; NaN in an empty bin
    accuracy : (bins,) share of right ones; NaN in an empty bin
    error : expected calibration error: mean over predictions of |accuracy - confidence| of their bin; NaN without any
    """

    edges: np.ndarray
    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    error: float


def calibration(confidence: np.ndarray, right: np.ndarray) -> Calibration:
    """Reliability in bins of equal width.

    Parameters
    ----------
    confidence : (R,) probability of the most probable type, 0 to 1
    right : (R,) bool, it is the native one
    """
    edges = np.linspace(0.0, 1.0, CALIBRATION_BINS + 1)
    which = np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    count = np.bincount(which, minlength=CALIBRATION_BINS)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(which, weights=confidence, minlength=CALIBRATION_BINS) / count
        accuracy = np.bincount(which, weights=right, minlength=CALIBRATION_BINS) / count
    used = count > 0
    gaps = np.abs(accuracy[used] - mean[used])
    error = float((gaps * count[used]).sum() / count.sum()) if used.any() else math.nan
    return Calibration(edges, count, mean, accuracy, error)
