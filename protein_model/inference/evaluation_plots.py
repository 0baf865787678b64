"""The pictures of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # a machine that evaluates need not have a screen
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, ScalarFormatter

from ..structures import RESIDUE_LETTERS
from ..wording import counted
from .evaluation_report import GroupFigures, Report
from .folders import written_whole
from .metrics import NUM_TYPES, Calibration
from .step_sweep import StepFigures

ONE_SHOT, SAMPLED, ORDER_AGNOSTIC, OTHER = "#1f77b4", "#d62728", "#2ca02c", "#7f7f7f"
ORDER_COLORS = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd")  # as many as there are orders
WIDE_RANGE = 5  # a longest structure that many times the shortest one needs a logarithmic axis
# Neighbours in this order resemble each other: small, aliphatic, aromatic, polar, negative, positive.
BY_CHEMISTRY = "GAPCVILMFYWSTNQDEHKR"


def draw_report(folder: Path, report: Report) -> list[Path]:
    """Write the pictures that the figures allow.

    Parameters
    ----------
    folder : exists; pictures of the same names in it are replaced

    Returns
    -------
    recovery.png, confusion.png and, for a model, calibration.png; with them mask_rate.png where there is such a curve
    """
    pictures = {"recovery.png": _recovery(report), "confusion.png": _confusion(report)}
    if report.one_shot_calibration is not None:
        pictures["calibration.png"] = _calibration(report)
    if report.mask_rate:
        pictures["mask_rate.png"] = _mask_rate(report)
    return [_save(folder / name, figure) for name, figure in pictures.items()]


def draw_steps(path: Path, figures: Sequence[StepFigures]) -> Path:
    """Write the picture of recovery and perplexity by the number of denoising steps, a line for each order."""
    figure, panels = plt.subplots(2, 2, figsize=(11, 7.5), layout="constrained")
    (median, mean), (perplexity, native) = panels
    counts = list(dict.fromkeys(row.steps for row in figures))
    for color, order in zip(ORDER_COLORS, dict.fromkeys(row.order for row in figures), strict=False):
        rows = [row for row in figures if row.order == order]
        places = [counts.index(row.steps) for row in rows]
        _line(median, places, 100 * np.array([row.recovery_median for row in rows]), color, order)
        _line(mean, places, 100 * np.array([row.recovery_mean for row in rows]), color, order)
        perplexity.plot(places, np.exp([row.score for row in rows]), "o-", color=color)
    # The native sequences are decoded in random order, whatever the order of sampling is.
    natives = {row.steps: row.native_perplexity for row in figures if row.native_perplexity is not None}
    if len(natives) == len(counts):
        _line(native, range(len(counts)), np.array([natives[steps] for steps in counts]), "black", "native sequences")
        shown = [median, mean, perplexity, native]
    else:
        native.remove()
        shown = [median, mean, perplexity]
    median.set_ylabel("sampled recovery, median, %")
    mean.set_ylabel("sampled recovery, mean, %")
    perplexity.set_ylabel("perplexity of the samples, exp(score)")
    native.set_ylabel("perplexity of native sequences, random order")
    for axes in shown:
        axes.set_xticks(range(len(counts)), [str(steps) for steps in counts])
        axes.set_xlabel("denoising steps")
        axes.grid(alpha=0.25)
    handles, labels = median.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    figure.supxlabel("bands: 95 % intervals of a bootstrap over structures", fontsize=9)
    return _save(path, figure)


def _line(axes: Axes, places: Sequence[int], estimates: np.ndarray, color: str, label: str) -> None:
    """A line of (points, 3) estimates with their intervals as a band."""
    axes.plot(places, estimates[:, 0], "o-", color=color, label=label)
    axes.fill_between(places, estimates[:, 1], estimates[:, 2], color=color, alpha=0.06, linewidth=0)


def _save(path: Path, figure: Figure) -> Path:
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)
    return path


def _recovery(report: Report) -> Figure:
    """Per structure by length, and over the residues of every group."""
    figure, panels = plt.subplots(2, 2, figsize=(12, 8), layout="constrained")
    _by_structure(panels[0, 0], report)
    _bars(panels[0, 1], report.groups["burial"], "CB atoms within 10 Å")
    _bars(panels[1, 0], report.groups["secondary structure"], "secondary structure")
    _bars(panels[1, 1], report.groups["residue type"], "native residue type")
    summary = report.summary
    figure.suptitle(
        f"{counted(summary.structures, 'structure')}, {counted(summary.residues, 'residue')}; bars are 95 % intervals"
    )
    return figure


def _by_structure(axes: Axes, report: Report) -> None:
    for name, label, color in (
        ("one_shot_recovery", "one-shot", ONE_SHOT),
        ("sampled_recovery", "sampled", SAMPLED),
    ):
        points = [
            (own.residues, 100 * getattr(own, name)) for own in report.structures if getattr(own, name) is not None
        ]
        if points:
            lengths, shares = zip(*points, strict=True)
            size = 18 if len(points) <= 200 else 5
            axes.scatter(lengths, shares, s=size, color=color, alpha=0.6, linewidth=0, label=label)
            axes.axhline(float(np.median(shares)), color=color, linewidth=1, linestyle="--", label=f"{label}, median")
            if max(lengths) > WIDE_RANGE * min(lengths):
                axes.set_xscale("log")
                axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
                axes.xaxis.set_major_formatter(ScalarFormatter())
                axes.minorticks_off()
    axes.set_xlabel("scored residues")
    axes.set_ylabel("recovery, %")
    axes.set_ylim(0, 1.2 * axes.get_ylim()[1])  # room for the legend
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8, loc="upper left", ncols=2)


def _bars(axes: Axes, groups: Sequence[GroupFigures], title: str) -> None:
    kinds = [
        (label, color, [getattr(row, name) for row in groups])
        for name, label, color in (
            ("one_shot_recovery", "one-shot", ONE_SHOT),
            ("sampled_recovery", "sampled", SAMPLED),
        )
    ]
    kinds = [kind for kind in kinds if kind[2] and None not in kind[2]]
    width = 0.8 / max(len(kinds), 1)
    places = np.arange(len(groups))
    for number, (label, color, estimates) in enumerate(kinds):
        values = 100 * np.array(estimates)
        offset = (number - (len(kinds) - 1) / 2) * width
        # A resampled interval need not hold the value itself where a group has few structures.
        errors = np.maximum([values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]], 0)
        axes.bar(places + offset, values[:, 0], width, yerr=errors, color=color, ecolor="black", label=label)
    axes.set_xticks(places, [row.group for row in groups])
    axes.set_xlabel(title)
    axes.set_ylabel("recovery over residues, %")
    axes.grid(alpha=0.25, axis="y")
    axes.set_axisbelow(True)
    axes.set_ylim(top=1.15 * axes.get_ylim()[1])  # room for the legend
    axes.legend(frameon=False, fontsize=8, loc="upper left", ncols=2)


def _confusion(report: Report) -> Figure:
    kinds = [
        (title, counts)
        for title, counts in (
            ("one-shot, most probable type", report.one_shot_confusion),
            ("sampled", report.sampled_confusion),
        )
        if counts is not None
    ]
    figure, panels = plt.subplots(1, len(kinds), figsize=(6.5 * len(kinds), 6), layout="constrained", squeeze=False)
    order = [RESIDUE_LETTERS.index(letter) for letter in BY_CHEMISTRY]
    for axes, (title, counts) in zip(panels[0], kinds, strict=True):
        totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
        shares = 100 * (counts[:, :NUM_TYPES] / totals)[np.ix_(order, order)]
        image = axes.imshow(shares, cmap="viridis", vmin=0)
        axes.set_xticks(range(NUM_TYPES), list(BY_CHEMISTRY))
        axes.set_yticks(range(NUM_TYPES), list(BY_CHEMISTRY))
        axes.set_xlabel("predicted")
        axes.set_ylabel("native")
        axes.set_title(title)
        figure.colorbar(image, ax=axes, label="% of the native residues of a type", shrink=0.85)
    return figure


def _calibration(report: Report) -> Figure:
    figure, (curve, counts) = plt.subplots(
        2, 1, figsize=(6, 7), sharex=True, height_ratios=(3, 1), layout="constrained"
    )
    curve.plot([0, 100], [0, 100], color=OTHER, linestyle=":", label="perfect")

    def draw(found: Calibration | None, label: str, color: str) -> None:
        if found is None:
            return
        used = found.count > 0
        text = f"{label}, expected error {100 * found.error:.1f} %"
        curve.plot(100 * found.confidence[used], 100 * found.accuracy[used], "o-", color=color, label=text)
        counts.stairs(100 * found.count / found.count.sum(), 100 * found.edges, color=color)

    draw(report.one_shot_calibration, "one-shot", ONE_SHOT)
    draw(report.order_agnostic_calibration, "order-agnostic", ORDER_AGNOSTIC)
    curve.set_ylabel("share of right predictions, %")
    curve.legend(frameon=False)
    counts.set_ylabel("predictions, %")
    counts.set_xlabel("probability of the most probable type, %")
    for axes in (curve, counts):
        axes.grid(alpha=0.25)
    return figure


def _mask_rate(report: Report) -> Figure:
    figure, loss = plt.subplots(figsize=(7, 4.5), layout="constrained")
    middle = [50 * (row.low + row.high) for row in report.mask_rate]
    loss.plot(middle, [row.nll for row in report.mask_rate], "o-", color=ONE_SHOT, label="loss")
    loss.set_ylabel("loss, nats per masked residue", color=ONE_SHOT)
    loss.set_xlabel("masked share of the sequence, %")
    loss.set_xlim(0, 100)
    loss.grid(alpha=0.25)
    recovery = loss.twinx()
    recovery.plot(middle, [100 * row.recovery for row in report.mask_rate], "o-", color=SAMPLED, label="recovery")
    recovery.set_ylabel("recovery of masked residues, %", color=SAMPLED)
    return figure
