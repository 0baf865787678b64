"""The picture of a run: losses, perplexity and learning rate over its epochs."""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # a training machine has no screen
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

from .progress import BestValidation, LossHistory

TRAIN, VALIDATION, RATE, MARK = "#1f77b4", "#d62728", "#7f7f7f", "#2ca02c"


def draw_loss_curve(path: Path, history: LossHistory, best: BestValidation) -> None:
    """Write the loss curve as a PNG picture; nothing is written before the first epoch is over.

    Parameters
    ----------
    path : of the picture
    history : all epochs, before and after resumes
    best : marked in the picture
    """
    if not history.epochs:
        return
    epochs = history.column("epoch")
    marker = "o" if len(epochs) <= 40 else None
    figure, (losses, perplexity) = plt.subplots(
        2, 1, figsize=(9, 7.5), sharex=True, height_ratios=(3, 2), layout="constrained"
    )
    losses.plot(epochs, history.column("train_loss"), color=TRAIN, marker=marker, markersize=3, label="train")
    losses.plot(
        epochs, history.column("validation_loss"), color=VALIDATION, marker=marker, markersize=3, label="validation"
    )
    if best.epoch:
        losses.plot(
            [best.epoch], [best.loss], "*", color=MARK, markersize=13, label=f"best {best.loss:.4f}, epoch {best.epoch}"
        )
    losses.set_ylabel("loss, nats per scored residue")
    losses.set_title(f"Training after {int(epochs[-1])} epochs, {int(history.column('step')[-1]):,} optimizer steps")
    rate = losses.twinx()
    rate.plot(epochs, history.column("learning_rate"), color=RATE, linewidth=1, linestyle=":", label="learning rate")
    rate.set_ylabel("learning rate", color=RATE)
    rate.tick_params(axis="y", colors=RATE)
    rate.set_ylim(bottom=0)

    perplexity.plot(
        epochs, history.column("one_shot_perplexity"), color=VALIDATION, marker=marker, markersize=3, label="perplexity"
    )
    perplexity.set_ylabel("validation, one-shot perplexity")
    perplexity.set_xlabel("epoch")
    perplexity.xaxis.set_major_locator(MaxNLocator(integer=True))
    recovery = perplexity.twinx()
    recovery.plot(
        epochs,
        [100 * value for value in history.column("one_shot_recovery")],
        color=MARK,
        marker=marker,
        markersize=3,
        label="recovery",
    )
    recovery.set_ylabel("one-shot recovery, %", color=MARK)
    recovery.tick_params(axis="y", colors=MARK)

    for number, resume in enumerate(history.resumes):
        for axes in (losses, perplexity):
            axes.axvline(
                float(resume["epoch"]),
                color="black",
                linewidth=0.8,
                linestyle="--",
                label="resumed" if number == 0 and axes is losses else None,
            )
    handles, labels = losses.get_legend_handles_labels()
    rate_handles, rate_labels = rate.get_legend_handles_labels()
    losses.legend(handles + rate_handles, labels + rate_labels, loc="upper right", frameon=False)
    for axes in (losses, perplexity):
        axes.grid(alpha=0.25)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)
    os.replace(temporary, path)
