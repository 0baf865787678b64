"""What a finished epoch measured: its entry in the loss history, a line for people, sequences to look at."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..data.cache import StructureCache
from ..model.configuration import RESIDUE_LETTERS
from .progress import TrainingProgress, loss_at_noise
from .validation import ValidationResult


def epoch_entry(progress: TrainingProgress, result: ValidationResult, learning_rate: float) -> dict[str, float]:
    """What `LossHistory.epochs` gets.

    Parameters
    ----------
    progress : at the end of the epoch, with its sums
    learning_rate : of its last step
    """
    sums = progress.epoch_sums
    scored = max(sums["scored"], 1.0)
    entry = {
        "epoch": progress.epoch,
        "step": progress.step,
        "train_loss": sums["nll"] / scored,
        "train_recovery": sums["correct"] / scored,
        "validation_loss": result.loss,
        "one_shot_perplexity": result.one_shot_perplexity,
        "one_shot_recovery": result.one_shot_recovery,
        "learning_rate": learning_rate,
        "seconds": sums["seconds"],
        "residues_per_second": sums["residues"] / max(sums["seconds"], 1e-9),
    }
    for number, loss in enumerate(result.loss_by_noise):
        if math.isfinite(loss):
            entry[loss_at_noise(number)] = loss
    return entry


def epoch_line(entry: Mapping[str, float], epochs: int, improved: bool) -> str:
    """An entry of the loss history in words; `epochs` is how many the run is to have."""
    return (
        f"epoch {entry['epoch']}/{epochs}  train loss {entry['train_loss']:.4f}  "
        f"validation loss {entry['validation_loss']:.4f} nats/residue{' (best)' if improved else ''}  "
        f"one-shot perplexity {entry['one_shot_perplexity']:.2f}  recovery {100 * entry['one_shot_recovery']:.1f} %  "
        f"{entry['residues_per_second']:,.0f} residues/s"
    )


def shown_designs(result: ValidationResult, cache: StructureCache) -> str:
    """Native sequences over those that the model predicts at once from the backbone alone."""
    lines = []
    for row, tokens in result.examples:
        predicted = "".join(RESIDUE_LETTERS[token] for token in tokens.tolist())
        lines += [cache.names[row], f"  native    {cache.sequence(row)}", f"  predicted {predicted}"]
    return "\n".join(lines)
