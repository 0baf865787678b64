"""Predictions and designs -> the figures of a whole set: summary, groups of residues, confusion, calibration.

Every figure over a set is a plain mean, a median over structures, or a sum over residues divided by their number, and
has a bootstrap interval. What is drawn and printed of it is left to `evaluation_plots` and `evaluation_tables`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..structures import RESIDUE_LETTERS, Structure
from ..structures.burial import neighbour_count
from ..structures.secondary_structure import SECONDARY_STRUCTURES, secondary_structure
from .evaluation import Evaluated
from .metrics import (
    NUM_TYPES,
    Bootstrap,
    Calibration,
    Estimate,
    calibration,
    confusion_matrix,
    recovery,
    scored_residues,
)
from .native_likelihood import MaskedPredictions, order_agnostic_nll, order_agnostic_residue_nll

# Upper bounds, each included; the last group has none. CATH 4.2's "short" proteins have at most 100 residues.
LENGTH_BOUNDS = (100, 200, 300, 500)
# CB atoms within 10 angstrom; about a quarter of residues of globular proteins have at most 11, a quarter more than 20.
BURIAL_BOUNDS = (9, 14, 19, 24)
MASK_RATE_BINS = 10


@dataclass(frozen=True)
class StructureFigures:
    """Figures of one structure.

    Attributes
    ----------
    name : of the structure
    length : residues
    residues : scored ones: complete backbone, known type
    one_shot_nll : nats over all scored residues, predicted at once from the backbone alone
    one_shot_recovery : share of scored residues whose most probable type is the native one
    order_agnostic_nll, order_agnostic_standard_error : estimate in nats over all scored residues, and its Monte Carlo
        error
    sampled_recovery : mean over samples
    sampled_score : nats per residue that the model gave its choices, mean over samples

    What was not measured is None.
    """

    name: str
    length: int
    residues: int
    one_shot_nll: float | None = None
    one_shot_recovery: float | None = None
    order_agnostic_nll: float | None = None
    order_agnostic_standard_error: float | None = None
    sampled_recovery: float | None = None
    sampled_score: float | None = None


@dataclass(frozen=True)
class Recovery:
    """One kind of recovery over a set: the median and the mean over structures, and the share of all residues."""

    median: Estimate
    mean: Estimate
    by_residue: Estimate


@dataclass(frozen=True)
class Summary:
    """Figures over a whole set; what was not measured is None.

    Attributes
    ----------
    structures, residues : with at least one scored residue; scored ones
    one_shot_recovery, sampled_recovery : as `StructureFigures` has them
    one_shot_perplexity, order_agnostic_perplexity : exp(nats / residue) over all residues together
    order_agnostic_standard_error : of that perplexity, from the Monte Carlo draws alone
    sampled_score : mean over structures, nats per residue
    undesigned : share of scored residues without a type in the designs; they count as not recovered
    """

    structures: int
    residues: int
    one_shot_recovery: Recovery | None
    one_shot_perplexity: Estimate | None
    order_agnostic_perplexity: Estimate | None
    order_agnostic_standard_error: float | None
    sampled_recovery: Recovery | None
    sampled_score: Estimate | None
    undesigned: float | None


@dataclass(frozen=True)
class GroupFigures:
    """Figures over a group of residues, all structures together; what was not measured is None.

    Attributes
    ----------
    group : its name
    structures, residues : that have such residues; scored ones
    one_shot_recovery, sampled_recovery : shares of the group's residues
    one_shot_perplexity, order_agnostic_perplexity : over the group's residues
    """

    group: str
    structures: int
    residues: int
    one_shot_recovery: Estimate | None
    one_shot_perplexity: Estimate | None
    order_agnostic_perplexity: Estimate | None
    sampled_recovery: Estimate | None


@dataclass(frozen=True)
class MaskRateFigures:
    """Predictions of masked residues, in draws in which a similar share of the sequence is masked.

    Attributes
    ----------
    low, high : bounds of that share, the upper one included
    draws, residues : how many, and masked residues in them
    nll : nats per masked residue
    recovery : share of masked residues whose most probable type is the native one
    """

    low: float
    high: float
    draws: int
    residues: int
    nll: float
    recovery: float


@dataclass(frozen=True)
class Report:
    """All figures of an evaluation.

    Attributes
    ----------
    summary : of the whole set
    groups : by "length", "burial", "secondary structure" and "residue type"
    mask_rate : empty where the model was not asked to predict some residues from others
    one_shot_confusion, sampled_confusion : (20, 21) counts, rows native, columns predicted, the last one nothing
    one_shot_calibration, order_agnostic_calibration : of the probability of the most probable type
    structures : in their order, also those without a scored residue
    """

    summary: Summary
    groups: dict[str, list[GroupFigures]]
    mask_rate: list[MaskRateFigures]
    one_shot_confusion: np.ndarray | None
    sampled_confusion: np.ndarray | None
    one_shot_calibration: Calibration | None
    order_agnostic_calibration: Calibration | None
    structures: list[StructureFigures]


def structure_figures(entry: Evaluated) -> StructureFigures:
    """Figures of one structure."""
    residues = int(scored_residues(entry.structure).sum())
    figures: dict[str, float] = {}
    if residues and entry.one_shot is not None:
        figures["one_shot_nll"] = float(entry.one_shot.nll.sum(dtype=np.float64))
        figures["one_shot_recovery"] = float(_right(entry.one_shot, entry.structure).sum()) / residues
    if residues and entry.order_agnostic is not None:
        nll, error = order_agnostic_nll(entry.order_agnostic)
        figures["order_agnostic_nll"], figures["order_agnostic_standard_error"] = nll, error
    if residues and entry.designs is not None:
        figures["sampled_recovery"] = float(recovery(entry.designs, entry.structure).mean())
        if entry.score is not None:
            figures["sampled_score"] = float(entry.score.mean())
    return StructureFigures(entry.structure.name, len(entry.structure), residues, **figures)


def _right(predictions: MaskedPredictions, structure: Structure) -> np.ndarray:
    """(D, L) bool, masked residues whose most probable type is the native one."""
    return predictions.masked & (predictions.predicted == structure.residue_type)


@dataclass(frozen=True, eq=False)
class _Residues:
    """The scored residues of a whole set, `R` of `S` structures; a column that was not measured is None.

    Attributes
    ----------
    structure : (R,) index of the structure
    count : S
    native : (R,) types
    one_shot_nll, order_agnostic_nll : (R,) nats
    one_shot_right, sampled_right : (R,) 0 to 1
    """

    structure: np.ndarray
    count: int
    native: np.ndarray
    one_shot_nll: np.ndarray | None
    one_shot_right: np.ndarray | None
    order_agnostic_nll: np.ndarray | None
    sampled_right: np.ndarray | None


def _residues(entries: Sequence[Evaluated]) -> _Residues:
    scored = [scored_residues(entry.structure) for entry in entries]

    def column(of_structure: Callable[[Evaluated], np.ndarray | None]) -> np.ndarray | None:
        parts = [of_structure(entry) for entry in entries]
        known = [part[mask] for part, mask in zip(parts, scored, strict=True) if part is not None]
        return np.concatenate(known) if len(known) == len(parts) and parts else None

    native = column(lambda entry: entry.structure.residue_type)
    return _Residues(
        structure=np.repeat(np.arange(len(entries)), [int(mask.sum()) for mask in scored]),
        count=len(entries),
        native=np.empty(0, np.int8) if native is None else native,
        one_shot_nll=column(lambda entry: None if entry.one_shot is None else entry.one_shot.nll[0]),
        one_shot_right=column(
            lambda entry: None if entry.one_shot is None else _right(entry.one_shot, entry.structure)[0]
        ),
        order_agnostic_nll=column(
            lambda entry: None if entry.order_agnostic is None else order_agnostic_residue_nll(entry.order_agnostic)
        ),
        sampled_right=column(
            lambda entry: (
                None if entry.designs is None else (entry.designs == entry.structure.residue_type).mean(axis=0)
            )
        ),
    )


def build_report(entries: Sequence[Evaluated], seed: int) -> Report:
    """All figures of a set.

    Parameters
    ----------
    entries : all measured in the same ways
    seed : of the bootstrap
    """
    figures = [structure_figures(entry) for entry in entries]
    measured = [entry for entry, own in zip(entries, figures, strict=True) if own.residues]
    table = _residues(measured)
    bootstrap = Bootstrap(len(measured), seed)
    one_shot = [(entry.one_shot, entry.structure) for entry in measured if entry.one_shot is not None]
    masked = [(entry.order_agnostic, entry.structure) for entry in measured if entry.order_agnostic is not None]
    sampled = [(entry.designs, entry.structure) for entry in measured if entry.designs is not None]
    return Report(
        summary=_summary([own for own in figures if own.residues], table, bootstrap, _undesigned(sampled)),
        groups=_groups(measured, table, bootstrap),
        mask_rate=_by_mask_rate(masked),
        one_shot_confusion=_confusion([(part.predicted, structure) for part, structure in one_shot]),
        sampled_confusion=_confusion(sampled),
        one_shot_calibration=_calibration(one_shot),
        order_agnostic_calibration=_calibration(masked),
        structures=figures,
    )


def _summary(
    figures: Sequence[StructureFigures], table: _Residues, bootstrap: Bootstrap, undesigned: float | None
) -> Summary:
    residues = np.array([own.residues for own in figures], np.float64)

    def column(name: str) -> np.ndarray | None:
        values = [getattr(own, name) for own in figures]
        return np.array(values) if values and None not in values else None

    def recovered(name: str) -> Recovery | None:
        shares = column(name)
        if shares is None:
            return None
        by_residue = bootstrap.ratio(shares * residues, residues)
        return Recovery(bootstrap.median(shares), bootstrap.mean(shares), by_residue)

    def perplexities(name: str) -> Estimate | None:
        nll = column(name)
        return None if nll is None else bootstrap.perplexity(nll, residues)

    order_agnostic, errors = perplexities("order_agnostic_nll"), column("order_agnostic_standard_error")
    score = column("sampled_score")
    return Summary(
        structures=len(figures),
        residues=int(residues.sum()),
        one_shot_recovery=recovered("one_shot_recovery"),
        one_shot_perplexity=perplexities("one_shot_nll"),
        order_agnostic_perplexity=order_agnostic,
        order_agnostic_standard_error=(
            None
            if order_agnostic is None or errors is None
            else order_agnostic.value * float(np.sqrt(np.square(errors).sum()) / residues.sum())
        ),
        sampled_recovery=recovered("sampled_recovery"),
        sampled_score=None if score is None else bootstrap.mean(score),
        undesigned=undesigned,
    )


def _undesigned(sampled: Sequence[tuple[np.ndarray, Structure]]) -> float | None:
    parts = [(designs[:, scored_residues(structure)] == NUM_TYPES).mean(axis=0) for designs, structure in sampled]
    return float(np.concatenate(parts).mean()) if parts else None


def _groups(entries: Sequence[Evaluated], table: _Residues, bootstrap: Bootstrap) -> dict[str, list[GroupFigures]]:
    structures = [entry.structure for entry in entries]

    def labels(of_structure: Callable[[Structure], np.ndarray]) -> np.ndarray:
        parts = [of_structure(structure)[scored_residues(structure)] for structure in structures]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    lengths = np.array([len(structure) for structure in structures], np.int64)
    by_length = np.searchsorted(LENGTH_BOUNDS, lengths)[table.structure]
    by_burial = np.searchsorted(BURIAL_BOUNDS, labels(neighbour_count))
    return {
        "length": _split(table, bootstrap, by_length, _range_names(LENGTH_BOUNDS, 1)),
        "burial": _split(table, bootstrap, by_burial, _range_names(BURIAL_BOUNDS, 0)),
        "secondary structure": _split(table, bootstrap, labels(secondary_structure), SECONDARY_STRUCTURES),
        "residue type": _split(table, bootstrap, table.native, RESIDUE_LETTERS[:NUM_TYPES]),
    }


def _range_names(bounds: Sequence[int], lowest: int) -> list[str]:
    starts = [lowest, *(bound + 1 for bound in bounds)]
    return [*(f"{start}-{end}" for start, end in zip(starts, bounds, strict=False)), f"{starts[-1]} and more"]


def _split(table: _Residues, bootstrap: Bootstrap, labels: np.ndarray, names: Sequence[str]) -> list[GroupFigures]:
    """Figures of every group that has residues; `labels` (R,) are indices into `names`."""
    return [
        _group(table, bootstrap, np.asarray(labels == index), name)
        for index, name in enumerate(names)
        if (labels == index).any()
    ]


def _group(table: _Residues, bootstrap: Bootstrap, inside: np.ndarray, name: str) -> GroupFigures:
    def sums(values: np.ndarray) -> np.ndarray:
        return np.bincount(table.structure[inside], weights=values[inside], minlength=table.count)

    residues = sums(np.ones(len(inside)))

    def share(values: np.ndarray | None) -> Estimate | None:
        return None if values is None else bootstrap.ratio(sums(values), residues)

    def perplexities(nll: np.ndarray | None) -> Estimate | None:
        return None if nll is None else bootstrap.perplexity(sums(nll), residues)

    return GroupFigures(
        group=name,
        structures=int((residues > 0).sum()),
        residues=int(inside.sum()),
        one_shot_recovery=share(table.one_shot_right),
        one_shot_perplexity=perplexities(table.one_shot_nll),
        order_agnostic_perplexity=perplexities(table.order_agnostic_nll),
        sampled_recovery=share(table.sampled_right),
    )


def _by_mask_rate(predictions: Sequence[tuple[MaskedPredictions, Structure]]) -> list[MaskRateFigures]:
    if not predictions:
        return []
    share = np.concatenate([part.share for part, _ in predictions])
    residues = np.concatenate([part.masked.sum(axis=1) for part, _ in predictions])
    nll = np.concatenate([part.nll.sum(axis=1, dtype=np.float64) for part, _ in predictions])
    right = np.concatenate([_right(part, structure).sum(axis=1) for part, structure in predictions])
    # A share on a bound belongs to the bin below it; rounding must not lift it over.
    which = np.ceil(share * MASK_RATE_BINS - 1e-9).astype(np.int64) - 1
    rows = []
    for index in range(MASK_RATE_BINS):
        inside = which == index
        if not inside.any():
            continue
        count = int(residues[inside].sum())
        rows.append(
            MaskRateFigures(
                low=index / MASK_RATE_BINS,
                high=(index + 1) / MASK_RATE_BINS,
                draws=int(inside.sum()),
                residues=count,
                nll=float(nll[inside].sum()) / count,
                recovery=float(right[inside].sum()) / count,
            )
        )
    return rows


def _confusion(predictions: Sequence[tuple[np.ndarray, Structure]]) -> np.ndarray | None:
    """Counts over the scored residues of (samples, L) predictions."""
    if not predictions:
        return None
    return sum(
        (
            confusion_matrix(structure.residue_type[scored], predicted[:, scored])
            for predicted, structure, scored in (
                (predicted, structure, scored_residues(structure)) for predicted, structure in predictions
            )
        ),
        start=np.zeros((NUM_TYPES, NUM_TYPES + 1), np.int64),
    )


def _calibration(predictions: Sequence[tuple[MaskedPredictions, Structure]]) -> Calibration | None:
    if not predictions:
        return None
    return calibration(
        np.concatenate([part.confidence[part.masked] for part, _ in predictions]),
        np.concatenate([_right(part, structure)[part.masked] for part, structure in predictions]),
    )


def plain(value: Any) -> Any:
    """Figures as JSON has them: dataclasses and estimates by name, arrays as lists, None for what is no number."""
    if isinstance(value, Estimate):
        return {name: plain(part) for name, part in value._asdict().items()}
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
