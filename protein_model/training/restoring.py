"""Loading a checkpoint into a run, and putting the run where the checkpoint stands.

Which checkpoint that is and what may differ is left to `resuming`, reading its files to `saving`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer

from ..model.modeling import ProteinModel
from ..wording import counted
from .arguments import Settings
from .averaging import WeightAverage
from .checkpoints import STATE_FOLDER, CheckpointError
from .description import schedule_text
from .progress import BestValidation, LossHistory, TrainingProgress
from .resuming import SavedRun
from .saving import load_state
from .schedule import Schedule


@dataclass(frozen=True)
class Registered:
    """The objects of a run that are registered with the `Accelerator`, in the order in which they are saved."""

    progress: TrainingProgress
    loss_history: LossHistory
    best_validation: BestValidation
    weight_average: WeightAverage

    def by_name(self) -> dict[str, Any]:
        return dict(vars(self))


def restore(
    accelerator: Accelerator,
    network: ProteinModel,
    optimizer: AcceleratedOptimizer,
    registered: Registered,
    saved: SavedRun,
    settings: Settings,
    schedule: Schedule,
    data: Mapping[str, Any],
    say: Callable[[str], None],
) -> int:
    """Load the state of a checkpoint, as the options of this launch want it, and say where the run goes on.

    Parameters
    ----------
    network, optimizer, registered : of this launch, new; they get the state
    schedule, data : of this launch, the latter as `run_description` has it
    say : prints a line

    Returns
    -------
    optimizer steps that an epoch had in the run that wrote the checkpoint

    Raises
    ------
    CheckpointError : another version of the package wrote it, with other objects
    """
    folder, names = saved.point.folder, list(registered.by_name())
    if saved.point.manifest.registered != names:
        raise CheckpointError(
            f"{folder} registers {', '.join(saved.point.manifest.registered)}, but this version of the package "
            f"{', '.join(names)}"
        )
    progress, history, best = registered.progress, registered.loss_history, registered.best_validation
    steps_per_epoch = progress.steps_per_epoch
    # Without what it has learned since: a rollback to the checkpoint comes here again.
    fresh_optimizer = {**optimizer.state_dict(), "state": {}} if settings.reset_optimizer else None
    load_state(accelerator, network, str(folder / STATE_FOLDER))
    if fresh_optimizer is not None:
        optimizer.load_state_dict(fresh_optimizer)
        say("The optimizer state is new (--reset_optimizer).")
    for group, decay in zip(optimizer.param_groups, (settings.weight_decay, 0.0), strict=True):
        group["weight_decay"] = decay
    # These are settings of this launch, although they are written with the state.
    registered.weight_average.decay, progress.seed = settings.ema_decay, settings.seed
    # A file of another program may tell no more than epochs.
    steps_known = saved.description["data"]["steps_per_epoch"] is not None
    old_steps = progress.steps_per_epoch
    _count_in_steps_of(steps_per_epoch, progress, steps_known, say)
    if saved.description["data"].get("validation_set", data["validation_set"]) != data["validation_set"]:
        best.forget()
    if progress.epochs_recorded and not history.epochs:
        say(
            f"WARNING: {folder} has no loss history: the loss curve starts anew at epoch {progress.epochs_recorded + 1}"
        )
    before = saved.schedule if steps_known else schedule
    if before != schedule:
        say(
            f"Changed on resume: schedule: {schedule_text(before, steps_per_epoch)} in the checkpoint, "
            f"{schedule_text(schedule, steps_per_epoch)} now"
        )
    if progress.epochs_recorded < settings.epochs:
        place = f", step {progress.step_in_epoch + 1} of {steps_per_epoch}" if progress.step_in_epoch else ""
        told = f"continues with epoch {progress.epochs_recorded + 1}{place} of {settings.epochs}"
    else:
        told = f"{counted(progress.epochs_recorded, 'epoch')} done, of {settings.epochs} wanted"
    say(
        f"{'A resume from' if settings.dry_run else 'Resumed from'} {folder}: {told}; "
        f"{counted(len(history.epochs), 'epoch')} in the train history, "
        f"{len(history.column('validation_loss'))} in the validation history; best validation loss "
        f"{best.loss:.4f} nats/residue (epoch {best.epoch}); learning rate "
        f"{before.rate(max(progress.step - 1, 0)):.3e} -> {schedule.rate(progress.step):.3e}"
    )
    if not settings.dry_run:
        fraction = progress.step / steps_per_epoch
        history.resumes.append({"step": progress.step, "epoch": fraction, "checkpoint": str(folder)})
    return old_steps


def _count_in_steps_of(
    steps_per_epoch: int, progress: TrainingProgress, steps_known: bool, say: Callable[[str], None]
) -> None:
    """Where an epoch of this launch has another number of steps, go on from the last whole epoch."""
    old_steps = progress.steps_per_epoch
    if old_steps == steps_per_epoch:
        return
    begun = progress.step - progress.epochs_recorded * old_steps
    progress.step = progress.epochs_recorded * steps_per_epoch
    progress.steps_per_epoch = steps_per_epoch
    progress.skipped_steps = []  # steps are others now
    progress.start_epoch()
    if steps_known:
        say(
            f"WARNING: an epoch has {counted(steps_per_epoch, 'optimizer step')} now, {old_steps:,} before"
            + (f"; of the unfinished epoch {counted(begun, 'step is', 'steps are')} done again" if begun else "")
        )
