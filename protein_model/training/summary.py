"""What is said when a run ends: how far it came, how good, how fast, and where everything is."""

from __future__ import annotations

import math
from pathlib import Path

from ..wording import counted
from .checkpoints import BEST_MODEL, SUPERSEDED
from .progress import BestValidation, LossHistory

FILES = {
    "loss_curve.png": "loss curve",
    "history.csv": "all epochs as a table",
    "train.log": "what was said",
    "tensorboard": "for tensorboard --logdir",
}


def run_summary(
    save_dir: Path,
    history: LossHistory,
    best: BestValidation,
    best_model: Path | None,
    newest_checkpoint: Path | None,
    launch_seconds: float,
    save_stall_seconds: float,
) -> str:
    """A few lines for the end of a run.

    Parameters
    ----------
    best_model : folder; None where the best epoch is from before a resume into another folder
    launch_seconds : since this launch began, reading of data included
    save_stall_seconds : that training waited for checkpoints in this launch
    """
    lines = []
    if history.epochs:
        last = history.epochs[-1]
        seconds = sum(entry.get("seconds", 0.0) for entry in history.epochs)
        residues = sum(entry.get("residues_per_second", 0.0) * entry.get("seconds", 0.0) for entry in history.epochs)
        lines += [
            f"epochs          {len(history.epochs):,} recorded, the last is number {last['epoch']:,.0f}, "
            f"{counted(int(last['step']), 'optimizer step')}; resumed {_times(len(history.resumes))}",
            f"training time   {duration(seconds)} in all epochs; this launch took {duration(launch_seconds)}, of which "
            f"{duration(save_stall_seconds)} waiting for checkpoints",
            f"speed           {residues / max(seconds, 1e-9):,.0f} residues/s on average",
        ]
    if math.isfinite(best.loss):
        epoch = f"epoch {best.epoch:,}" if best.epoch else "of an epoch that its file does not tell"
        aside = save_dir / SUPERSEDED / BEST_MODEL
        where = f"from before the resume, {f'set aside: {aside}' if aside.is_dir() else f'not in {save_dir}'}"
        if best_model is not None:
            where = str(best_model)
        lines.append(f"best            validation loss {best.loss:.4f} nats/residue, {epoch}: {where}")
    if newest_checkpoint is not None:
        lines.append(f"to go on        --resume_from {newest_checkpoint} with a higher --epochs")
    present = [f"{save_dir / name} ({text})" for name, text in FILES.items() if (save_dir / name).exists()]
    lines += [f"{'files' if number == 0 else '':15s} {text}" for number, text in enumerate(present)]
    return "\n".join(["Run summary", *(f"  {line}" for line in lines)])


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:,.1f} h"


def _times(number: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(number, f"{number:,} times")
