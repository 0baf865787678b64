"""Single files of other programs: a whole checkpoint made from the plain keys and the options of this launch.

Nothing that such a file leaves out is guessed in silence: whatever is taken from elsewhere or begins anew is one note.
The format is left to `single_file`, the order of optimizer state to `optimizer_state`, the writing to `content`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..model.modeling import ProteinModel
from ..wording import counted
from .arguments import GivenOptions, Settings, absolute_paths
from .checkpoints import CheckpointError
from .compatibility import ARCHITECTURE
from .content import CheckpointContent, empty_model, joined_weights, weight_mismatches
from .optimizer_state import NAMES, OptimizerStateError, numbered_names, parameter_groups, rearranged
from .preparation import build_optimizer, model_configuration
from .progress import BestValidation, LossHistory, TrainingProgress
from .schedule import Schedule
from .single_file import KEYS, epochs_finished

Note = Callable[[str], None]

_NUMBER = re.compile(r"\d+")
_LAYER = re.compile(r"layers\.(\d+)\.")
_WRAPPERS = frozenset({"module", "_orig_mod"})  # of DistributedDataParallel and torch.compile
_STEPS_WHERE_UNKNOWN = 1  # an epoch is then the only unit of progress; a resume counts its own steps
_NOTABLE_RATE_CHANGE = 0.05
_SCHEDULE_KEYS = {"epochs": "total_epochs", "warmup_epochs": "warmup_epochs", "learning_rate": "max_lr"}


def complete(
    document: dict[str, Any], given: GivenOptions, shards: int, origin: Path
) -> tuple[CheckpointContent, list[str]]:
    """A checkpoint from a file with the plain keys only.

    Parameters
    ----------
    document : as `read_single_file` gives it
    given : options of this launch, among them the architecture; the schedule is that of the file where it has one
    shards : micro-batches per optimizer step of the run that goes on from here
    origin : the file, for messages

    Returns
    -------
    content : what the file has, completed
    notes : what it lacks and what was done about it, one sentence each

    Raises
    ------
    CheckpointError : the file holds another model than the options ask for, or its epoch is no count
    """
    notes: list[str] = []
    note = notes.append
    document = _without_wrappers(document, note)
    epoch, remark = epochs_finished(document, origin)
    if remark is not None:
        note(remark)
    settings = _settings(document, given, epoch, origin, note)
    model, weights = _weights(document, settings, origin, note)
    optimizer, steps = _optimizer(document, model, settings, note)

    steps_per_epoch = steps // epoch if epoch and steps and steps % epoch == 0 else None
    progress = TrainingProgress(steps_per_epoch or _STEPS_WHERE_UNKNOWN, shards, settings.seed)
    progress.step, progress.epochs_recorded = epoch * progress.steps_per_epoch, epoch
    history = _history(document, progress, note)
    best = _best(document, history, epoch, note)
    note("the file has no weight average (EMA): it starts from the trained weights")
    note(
        "the file does not say which data it was trained on, nor with which seed: the order of the samples is that of "
        f"--seed {settings.seed}"
    )
    unused = [str(name) for name in document if name not in KEYS]
    if unused:
        note(f"not used: {', '.join(unused)}")
    average = {name: weights[name].clone() for name, _ in model.named_parameters()}
    content = CheckpointContent(
        config=model.config.to_dict(),
        run={
            "settings": absolute_paths(settings.to_dict()),
            "data": {"steps_per_epoch": steps_per_epoch},
            "schedule": _schedule(settings, progress.steps_per_epoch).to_dict(),
            "shards": shards,
            "versions": {},
        },
        weights=weights,
        optimizer=optimizer,
        registered={
            "progress": progress.state_dict(),
            "loss_history": history.state_dict(),
            "best_validation": best.state_dict(),
            "weight_average": {"updates": 0, "average": average},
        },
        scaler=None,
        versions={},
    )
    return content, notes


# ---------------------------------------------------------------------- progress and schedule


def _settings(document: dict[str, Any], given: GivenOptions, epoch: int, origin: Path, note: Note) -> Settings:
    """Options of this launch, with the schedule of the file."""
    saved = {option: document[key] for option, key in _SCHEDULE_KEYS.items() if key in document}
    scheduler = document.get("cosine_scheduler_state_dict")
    if scheduler is None:
        complete_without = len(saved) == len(_SCHEDULE_KEYS)
        note(
            "the file has no cosine_scheduler_state_dict"
            + (
                ": nothing is lost, the rate follows from epoch, total_epochs, warmup_epochs and max_lr"
                if complete_without
                else ""
            )
        )
    else:
        read = _schedule_from_scheduler(scheduler, epoch, saved.get("warmup_epochs"))
        for option in read.keys() - saved.keys():
            saved[option] = read[option]
            note(f"the file has no {_SCHEDULE_KEYS[option]}: {read[option]:g} is read from its scheduler state")
    if "epochs" in saved:
        if not float(saved["epochs"]).is_integer():
            raise CheckpointError(f"{origin}: total_epochs is {saved['epochs']!r}, not a number of epochs")
        saved["epochs"] = int(saved["epochs"])
    kept = GivenOptions({name: value for name, value in given.values.items() if name not in saved})
    settings = kept.resolve(saved)
    for option in _SCHEDULE_KEYS.keys() - saved.keys():
        note(
            f"the file has no {_SCHEDULE_KEYS[option]}: --{option} {getattr(settings, option):g} is used"
            + ("" if option in given.values else ", the default; give another one if the run had another one")
        )
    _note_rate(scheduler, settings, epoch, note)
    return settings


def _schedule_from_scheduler(state: dict[str, Any], epoch: int, warmup_epochs: float | None) -> dict[str, Any]:
    """Peak and length from the state of a `CosineAnnealingLR`, stepped once an epoch or once an optimizer step."""
    found: dict[str, Any] = {}
    rates, period, done = state.get("base_lrs"), state.get("T_max"), state.get("last_epoch")
    if isinstance(rates, list) and rates and isinstance(rates[0], float) and rates[0] > 0:
        found["learning_rate"] = rates[0]
    if warmup_epochs is None or not isinstance(period, (int, float)) or not isinstance(done, int) or done < 1:
        return found
    decayed = epoch - warmup_epochs
    if decayed > 0:
        total = warmup_epochs + period * decayed / done
        if math.isfinite(total) and abs(total - round(total)) < 1e-6:
            found["epochs"] = round(total)
    return found


def _schedule(settings: Settings, steps_per_epoch: int) -> Schedule:
    warmup_steps = round(settings.warmup_epochs * steps_per_epoch)
    return Schedule(settings.learning_rate, warmup_steps, settings.epochs * steps_per_epoch)


def _note_rate(scheduler: dict[str, Any] | None, settings: Settings, epoch: int, note: Note) -> None:
    """Tell where the rate of the file and that of this trainer's schedule differ."""
    last = scheduler.get("_last_lr") if scheduler is not None else None
    if not isinstance(last, list) or not last or not isinstance(last[0], float):
        return
    fine = 1000  # steps per epoch; those of the run do not matter for the rate at the end of an epoch
    rate = _schedule(settings, fine).rate(epoch * fine)
    if not math.isclose(rate, last[0], rel_tol=_NOTABLE_RATE_CHANGE):
        note(
            f"the learning rate is {last[0]:.3e} in the file and {rate:.3e} here: warm-up over "
            f"{counted(settings.warmup_epochs, 'epoch')} to {settings.learning_rate:.3e}, cosine until "
            f"{settings.epochs}"
        )


def _history(document: dict[str, Any], progress: TrainingProgress, note: Note) -> LossHistory:
    """Losses of the finished epochs, the last of them in the last entry."""
    columns = {"train_loss": document.get("train_losses", []), "validation_loss": document.get("val_losses", [])}
    epoch, history = progress.epochs_recorded, LossHistory()
    for key, losses in (("train_losses", columns["train_loss"]), ("val_losses", columns["validation_loss"])):
        if not losses and epoch:
            note(f"the file has no {key}: that curve starts anew at epoch {epoch + 1}")
        elif len(losses) > epoch:
            note(
                f"the file has {len(losses)} {key} for {counted(epoch, 'epoch')}: "
                f"the last {counted(epoch, 'is', 'are')} kept"
            )
        elif losses and len(losses) < epoch:
            taken = f"epochs {epoch - len(losses) + 1} to {epoch}" if len(losses) > 1 else f"epoch {epoch}"
            note(f"the file has {len(losses)} {key} for {counted(epoch, 'epoch')}: taken for {taken}")
    for number in range(1, epoch + 1):
        entry: dict[str, float] = {"epoch": number, "step": number * progress.steps_per_epoch}
        for column, losses in columns.items():
            index = number - 1 - epoch  # from the end
            if -index <= len(losses):
                entry[column] = float(losses[index])
        if len(entry) > 2:
            history.epochs.append(entry)
    return history


def _best(document: dict[str, Any], history: LossHistory, epoch: int, note: Note) -> BestValidation:
    best = BestValidation()
    for entry in history.epochs:
        if "validation_loss" in entry:
            best.update(entry["validation_loss"], int(entry["epoch"]), 0.0)
    lowest = best.loss
    if "loss" not in document:
        note(
            "the file has no loss, the best validation loss so far: "
            + (
                f"{lowest:.4f}, the lowest of val_losses, is taken"
                if math.isfinite(lowest)
                else "the first validation counts as the best"
            )
        )
        return best
    loss = float(document["loss"])
    if loss < lowest:
        # The history does not go back to it; only the number is known.
        state = {**best.state_dict(), "loss": loss, "epoch": 0, "patience_reference": loss}
        best.load_state_dict(state)
        note(f"the best validation loss, {loss:.4f}, is none of val_losses: the epoch that reached it is not known")
    elif loss > lowest:
        note(f"loss is {loss:.4f}, but the lowest of val_losses is {lowest:.4f}: that is taken as the best")
    return best


# ---------------------------------------------------------------------- weights and optimizer


def _without_wrappers(document: dict[str, Any], note: Note) -> dict[str, Any]:
    """Names of parameters as they are without DistributedDataParallel and torch.compile around the model."""
    cleaned = dict(document)
    wrapped = False
    for key in ("encoder_state_dict", "decoder_state_dict"):
        renamed = {_unwrapped(name): tensor for name, tensor in document[key].items()}
        wrapped |= renamed.keys() != document[key].keys()
        cleaned[key] = renamed
    if wrapped:
        note("names of weights begin with those of a wrapper (module, _orig_mod), which are left out")
    return cleaned


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _weights(
    document: dict[str, Any], settings: Settings, origin: Path, note: Note
) -> tuple[ProteinModel, dict[str, Tensor]]:
    """The model that the options ask for, and the weights of the file, which must fit it."""
    model = empty_model(model_configuration(settings))
    weights = joined_weights(document, model)
    mismatches = weight_mismatches(model, weights)
    if mismatches:
        raise CheckpointError(_other_model(origin, model, weights, mismatches))
    expected = model.state_dict()
    if any(tensor.dtype != expected[name].dtype for name, tensor in weights.items()):
        note("weights are converted to float32")
    sized = ", ".join(f"{name} {getattr(settings, name)}" for name in _SIZED)
    unsized = ", ".join(
        f"{name} {getattr(settings, name)}"
        for name in (*ARCHITECTURE, "dropout")
        if name not in _SIZED and hasattr(settings, name)
    )
    note(
        f"the file does not describe its model: {sized} fit the sizes of its weights; {unsized} cannot be told from "
        "sizes and are those of this launch"
    )
    return model, {name: tensor.to(expected[name].dtype) for name, tensor in weights.items()}


_SIZED = ("hidden_dim", "num_encoder_layers", "num_decoder_layers")


def _other_model(origin: Path, model: ProteinModel, weights: dict[str, Tensor], mismatches: list[str]) -> str:
    """Message about weights that do not fit, with the options that would, where the sizes tell."""
    ours = {_NUMBER.sub("N", name) for name in model.state_dict()}
    strange = [name for name in weights if _NUMBER.sub("N", name) not in ours]
    if 2 * len(strange) >= len(weights):
        return (
            f"{origin}: holds another kind of model; this one does not know {len(strange)} of its "
            f"{counted(len(weights), 'weight')} by name{f', such as {strange[0]}' if strange else ''}; nothing was "
            "imported"
        )
    lines = [f"{origin}: holds another model than this launch asks for; nothing was imported:"]
    lines += [f"  {line}" for line in mismatches]
    wanted = {"hidden_dim": model.config.hidden_dim, "num_encoder_layers": model.config.num_encoder_layers}
    wanted["num_decoder_layers"] = model.config.num_decoder_layers
    found = _sizes_of(weights)
    options = [f"--{name} {found[name]}" for name in _SIZED if name in found and found[name] != wanted[name]]
    if options:
        lines.append(f"To import it, give: {' '.join(options)}")
    return "\n".join(lines)


def _sizes_of(weights: dict[str, Tensor]) -> dict[str, int]:
    """The options that the sizes of weights tell."""
    sizes = {}
    norm = weights.get("decoder.norm.weight")
    if norm is not None and norm.ndim == 1:
        sizes["hidden_dim"] = len(norm)
    for part in ("encoder", "decoder"):
        layers = [int(match[1]) for name in weights if name.startswith(part) and (match := _LAYER.search(name))]
        if layers:
            sizes[f"num_{part}_layers"] = max(layers) + 1
    return sizes


def _optimizer(
    document: dict[str, Any], model: ProteinModel, settings: Settings, note: Note
) -> tuple[dict[str, Any], int]:
    """Optimizer state of the file in this trainer's order, and the steps that it counts; a new one where that fails."""
    fresh = build_optimizer(model, settings.weight_decay, torch.device("cpu")).state_dict()
    consequence = "the running averages of the gradients start anew, and the first steps are less even"
    state = document.get("optimizer_state_dict")
    if state is None:
        note(f"the file has no optimizer_state_dict: {consequence}")
        return fresh, 0
    try:
        arranged = _arranged(state, model, document, settings.weight_decay, note)
    except OptimizerStateError as error:
        note(f"optimizer_state_dict {error}, so it is not used: {consequence}")
        return fresh, 0
    for group, fresh_group in zip(arranged["param_groups"], fresh["param_groups"], strict=True):
        if group["betas"] != fresh_group["betas"] or group["eps"] != fresh_group["eps"]:
            note(f"AdamW goes on with betas {group['betas']} and eps {group['eps']:g} of the file")
            break
    steps = max((int(entry["step"].item()) for entry in arranged["state"].values()), default=0)
    return arranged, steps


def _arranged(
    state: Any, model: ProteinModel, document: dict[str, Any], weight_decay: float, note: Note
) -> dict[str, Any]:
    """Optimizer state by the names in the file; without them, by the first order whose shapes all fit."""
    groups = numbered_names(state)
    parameters = {name for name, _ in model.named_parameters()}
    if groups is not None:
        names = [[_unwrapped(name) for name in group] for group in groups]
        if {name for group in names for name in group} == parameters:
            return rearranged(state, model, names, weight_decay)
    sizes = [len(group["params"]) for group in state["param_groups"]]
    trainer_groups = parameter_groups(model)
    orders = {
        "that of encoder_state_dict, then decoder_state_dict": [
            name
            for part in ("encoder", "decoder")
            for key in document[f"{part}_state_dict"]
            if (name := f"{part}.{key}") in parameters
        ],
        "that of this trainer's groups, matrices first": [name for group in trainer_groups for name in group],
    }
    if sizes == [len(group) for group in trainer_groups]:
        orders = dict(reversed(orders.items()))
    problem = OptimizerStateError(f"is for {counted(sum(sizes), 'parameter')}, and the model has {len(parameters)}")
    for description, order in orders.items():
        if sum(sizes) != len(order):
            continue
        try:
            arranged = rearranged(state, model, _cut(order, sizes), weight_decay)
        except OptimizerStateError as error:
            problem = error
            continue
        note(f"optimizer_state_dict has no {NAMES}: its order is taken to be {description}, which fits all shapes")
        return arranged
    raise problem


def _cut(order: list[str], sizes: list[int]) -> list[list[str]]:
    names = iter(order)
    return [[next(names) for _ in range(size)] for size in sizes]
