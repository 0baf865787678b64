"""The picture of a run: losses, learning rate, recovery and perplexity, loss by noise level, over its epochs."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..wording import counted
from .progress import BestValidation, LossHistory, loss_at_noise

TRAIN, VALIDATION, RATE, BEST, RECOVERY, EVENT = "#1f77b4", "#d62728", "#6b6b6b", "#2ca02c", "#2ca02c", "#9467bd"
NOISE_COLOURS = ("#fdc086", "#fd8d3c", "#e6550d", "#a63603", "#5f1f00")
EPOCHS_WITH_MARKERS = 40  # of more, markers would be a band
FEW_EPOCHS = 5  # of more, the losses have fallen from the height of the legend
EPOCHS_BEFORE_SMOOTHING = 150  # of more, the noise of single epochs hides the course
LEGEND_WIDTH, LEGEND_HEIGHT = 0.7, 0.2  # shares of a panel that the legend of the noise levels takes at most
LINES_AT_MOST = 12  # of more resumes, full lines would be a grid
LOG_RATIO = 8.0  # highest over lowest loss from which on equal factors are shown as equal heights
SPIKE = 3.0  # a value this many times as high as nearly all others leaves the picture, and is named instead


def draw_loss_curve(path: Path, history: LossHistory, best: BestValidation) -> None:
    """Write the loss curve as a PNG picture; nothing is written before the first epoch is over.

    Parameters
    ----------
    path : of the picture; replaced as a whole
    history : all epochs, before and after resumes
    best : marked in the picture
    """
    if not history.epochs:
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    loss_figure(history, best).savefig(temporary, dpi=110, format="png")
    os.replace(temporary, path)


def loss_figure(history: LossHistory, best: BestValidation) -> Figure:
    """The picture, not written yet; `history` has at least one epoch."""
    epochs = np.array(history.column("epoch"))
    by_noise = _columns_by_noise(history)
    heights = [4.0, 1.1, 2.2] + [2.2] * bool(by_noise)
    # Not by pyplot, whose list of figures is not meant for threads; checkpoints are written beside the training.
    figure = Figure(figsize=(10, 1.25 * sum(heights)), layout="constrained")
    panels: list[Axes] = list(figure.subplots(len(heights), 1, sharex=True, height_ratios=heights))
    losses, rate, quality = panels[:3]

    _plot(losses, epochs, history.column("train_loss"), TRAIN, "training")
    _plot(losses, epochs, history.column("validation_loss"), VALIDATION, "validation")
    if best.epoch:
        label = f"best {best.loss:.4f}, epoch {best.epoch:,}"
        losses.plot([best.epoch], [best.loss], "*", color=BEST, markersize=14, markeredgecolor="white", label=label)
    losses.set_ylabel("loss, nats per scored residue")
    _scale(losses, history.column("train_loss") + history.column("validation_loss"))
    steps = int(history.epochs[-1].get("step", 0))
    seconds = sum(value for value in history.column("seconds") if math.isfinite(value))
    spent = f"{seconds / 3600:,.1f} hours" if seconds >= 3600 else f"{seconds / 60:,.1f} minutes"
    losses.set_title(f"{counted(int(epochs[-1]), 'epoch')}, {counted(steps, 'optimizer step')}, {spent} of training")

    rates = history.column("learning_rate")
    rate.plot(epochs, rates, color=RATE, linewidth=1.2, **_markers(epochs))
    rate.set_ylabel("learning rate")
    rate.set_ylim(bottom=0)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-3, 3))

    _plot(quality, epochs, history.column("one_shot_perplexity"), VALIDATION, "perplexity")
    quality.set_ylabel("perplexity", color=VALIDATION)
    _scale(quality, history.column("one_shot_perplexity"))
    recovery = quality.twinx()
    _plot(recovery, epochs, [100 * value for value in history.column("one_shot_recovery")], RECOVERY, "recovery")
    recovery.set_ylabel("recovery, %", color=RECOVERY)
    if len(epochs) == 1:
        _draw_apart(quality, recovery)
    quality.set_title("validation, all residues predicted at once from the backbone alone", fontsize=10)

    if by_noise:
        _draw_by_noise(panels[3], epochs, by_noise)
    for panel in panels:
        panel.grid(alpha=0.25)
        panel.margins(x=0.02)
    _mark_events(panels, history)
    panels[-1].set_xlabel("epoch")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    losses.legend(loc="best" if len(epochs) <= FEW_EPOCHS else "upper right", framealpha=0.85, edgecolor="none")
    if by_noise:
        _make_room_for_legend(panels[3])
    return figure


def _columns_by_noise(history: LossHistory) -> list[tuple[int, list[float]]]:
    """The fifths of the noise levels that were measured; none for a model that knows only one level."""
    columns = [(number, history.column(loss_at_noise(number))) for number in range(len(NOISE_COLOURS))]
    measured = [(number, values) for number, values in columns if any(map(math.isfinite, values))]
    return measured if len(measured) > 1 else []


def _draw_by_noise(panel: Axes, epochs: np.ndarray, by_noise: list[tuple[int, list[float]]]) -> None:
    for number, values in by_noise:
        _plot(panel, epochs, values, NOISE_COLOURS[number], f"{20 * number} to {20 * number + 20} %")
    _scale(panel, [value for _, values in by_noise for value in values])
    panel.set_ylabel("loss, nats per residue")
    panel.set_title("validation loss by how much of the sequence is corrupted", fontsize=10)
    panel.legend(loc="upper right", ncols=len(by_noise), framealpha=0.85, edgecolor="none", fontsize=8)


def _draw_apart(left: Axes, right: Axes) -> None:
    """Two single points, each in the middle of a scale of its own, would be one: put them above and below it."""
    for panel, place in ((left, 2 / 3), (right, 1 / 3)):
        low, high = panel.get_ylim()
        middle, height = (low + high) / 2, high - low
        panel.set_ylim(middle - place * height, middle + (1 - place) * height)


def _make_room_for_legend(panel: Axes) -> None:
    """A higher upper limit where a curve is in the strip that the legend takes at the top, on its right side."""
    panel.get_xlim(), panel.get_ylim()  # the limits are settled when they are asked for
    to_share = panel.transData - panel.transAxes
    for line in panel.get_lines():
        if line.get_color() not in NOISE_COLOURS:
            continue  # a resume, which is drawn from bottom to top
        across, up = to_share.transform(line.get_xydata()).T
        if ((across > 1 - LEGEND_WIDTH) & (up > 1 - LEGEND_HEIGHT)).any():
            panel.set_ylim(top=float(to_share.inverted().transform((0, 1 + LEGEND_HEIGHT))[1]))
            return


def _plot(panel: Axes, epochs: np.ndarray, values: Sequence[float], colour: str, label: str) -> None:
    """A curve; of a long run, its running median over a pale curve of the values."""
    if len(epochs) <= EPOCHS_BEFORE_SMOOTHING:
        panel.plot(epochs, values, color=colour, linewidth=1.4, label=label, **_markers(epochs))
        return
    panel.plot(epochs, values, color=colour, linewidth=0.7, alpha=0.3)
    panel.plot(
        epochs, running_median(np.array(values), len(epochs) // 100 | 1), color=colour, linewidth=1.4, label=label
    )


def _markers(epochs: np.ndarray) -> dict[str, Any]:
    return {"marker": "o", "markersize": 3.5} if len(epochs) <= EPOCHS_WITH_MARKERS else {}


def running_median(values: np.ndarray, width: int) -> np.ndarray:
    """Median of `width` neighbouring values, an odd number; of fewer at both ends. It passes over single spikes.

    Values that are not finite are left out; NaN where nothing is left.

    Parameters
    ----------
    values : (N,)

    Returns
    -------
    (N,)
    """
    padded = np.pad(np.where(np.isfinite(values), values, np.nan), width // 2, constant_values=np.nan)
    windows = np.sort(np.lib.stride_tricks.sliding_window_view(padded, width), axis=-1)  # NaN last
    count = np.isfinite(windows).sum(axis=-1)
    rows = np.arange(len(values))
    upper, lower = windows[rows, count // 2], windows[rows, np.maximum(count - 1, 0) // 2]
    return np.where(count > 0, (lower + upper) / 2, np.nan)


def _scale(panel: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis where values differ by factors; single spikes do not flatten the rest."""
    finite = np.array([value for value in values if math.isfinite(value)])
    if not len(finite):
        return
    usual, highest = float(np.quantile(finite, 0.98)), float(finite.max())
    lowest = float(finite.min())
    if lowest > 0 and usual / lowest > LOG_RATIO:
        panel.set_yscale("log")
    elif len(finite) > EPOCHS_WITH_MARKERS and highest > SPIKE * usual > 0:
        room = 0.05 * (usual - lowest)
        panel.set_ylim(lowest - room, 1.25 * usual)
        panel.annotate(
            f"up to {highest:,.3g} above",
            (0.01, 0.97),
            xycoords="axes fraction",
            verticalalignment="top",
            color=EVENT,
            fontsize=9,
        )


def _mark_events(panels: Sequence[Axes], history: LossHistory) -> None:
    """Resumes as lines, or, of many, as ticks at the lower edge; steps that were not taken as crosses at the upper."""
    resumed = [float(resume["epoch"]) for resume in history.resumes]
    few = len(resumed) <= LINES_AT_MOST
    for panel in panels:
        lines = panel.get_xaxis_transform()
        for number, epoch in enumerate(resumed):
            label = f"resumed ({len(resumed)})" if number == 0 and panel is panels[0] else None
            panel.plot(
                [epoch, epoch],
                [0, 1 if few else 0.04],
                transform=lines,
                color="black",
                lw=0.9,
                ls="--" if few else "-",
                label=label,
                zorder=1,
            )
    for action, marker, text in (("rollback", "v", "rolled back"), ("skip", "x", "step left out")):
        at = [float(event["epoch"]) for event in history.divergences if event["action"] == action]
        if at:
            panels[0].plot(
                at,
                [0.965] * len(at),
                marker,
                transform=panels[0].get_xaxis_transform(),
                color=EVENT,
                markersize=8,
                label=f"{text} ({len(at)})",
                clip_on=False,
            )
