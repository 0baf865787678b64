"""Checkpoint folders <-> single `.pt` files, and the way of a `.pt` file into a resumed run.

A file that this package wrote carries the whole state (`full_state`), and comes back bit for bit. A file with the
plain keys only is completed by `plain_keys`, with a note for everything that it does not say.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from .arguments import GivenOptions
from .checkpoints import BEST_MODEL, CheckpointError, CheckpointStore
from .content import (
    CheckpointContent,
    check_registered,
    configured_model,
    joined_weights,
    read_content,
    weight_mismatches,
    write_content,
)
from .optimizer_state import OptimizerStateError, for_other_programs, rearranged
from .plain_keys import complete
from .progress import BestValidation, LossHistory
from .single_file import FULL_STATE, KEYS, MALFORMED, cosine_scheduler_state, read_single_file, write_single_file

FORMAT = 1


@dataclass(frozen=True)
class ImportedCheckpoint:
    """A single file that is now a checkpoint folder.

    Attributes
    ----------
    folder : the committed checkpoint
    notes : what the file did not say, and what that means, one sentence each
    """

    folder: Path
    notes: list[str]


def export_checkpoint(folder: Path, file: Path) -> None:
    """Write a checkpoint folder as a single file.

    Raises
    ------
    CheckpointError : the folder is damaged, or the file exists or cannot be written
    """
    if file.exists():
        raise CheckpointError(f"{file}: exists already; give another name, or move it away")
    write_single_file(file, to_document(read_content(folder), folder))


def import_checkpoint(
    file: Path, given: GivenOptions, shards: int, save_dir: Path, name: str | None = None
) -> ImportedCheckpoint:
    """Write a single file as a committed checkpoint folder.

    Parameters
    ----------
    file : from `export_checkpoint` or another program
    given : options of this launch; those that the file does not know are taken from here
    shards : micro-batches per optimizer step of the run, where the file does not know
    save_dir : folder of the new checkpoint
    name : of the new checkpoint; by default checkpoint_epoch_N or checkpoint_step_N, and best_model beside it where it
        is of the best epoch

    Raises
    ------
    CheckpointError : the file is damaged, could run code, holds another model than asked for, or the folder is taken
    """
    document = read_single_file(file)
    notes: list[str] = []
    if FULL_STATE in document:
        content = from_document(document, file)
    else:
        content, notes = complete(document, given, shards, file)
    store = CheckpointStore(save_dir)
    folder = write_content(content, store, name or content.name)
    if name is None and content.is_best and not (save_dir / BEST_MODEL).exists():
        write_content(content, store, BEST_MODEL)
    return ImportedCheckpoint(folder, notes)


def named_file(resume_from: str | None, save_dir: Path) -> Path | None:
    """The single file that `--resume_from` names, itself or below `save_dir`; None where it names anything else."""
    if resume_from in (None, "latest"):
        return None
    return next((path for path in (Path(resume_from), save_dir / resume_from) if path.is_file()), None)


def to_document(content: CheckpointContent, origin: Path) -> dict[str, Any]:
    """The entries of a single file, as `single_file` lists them.

    Parameters
    ----------
    origin : for messages
    """
    model = configured_model(content.config, len(content.weights), origin)
    progress, schedule = content.progress, content.schedule
    parts: dict[str, dict[str, Tensor]] = {f"{part}_state_dict": {} for part, _ in model.named_children()}
    for name, tensor in content.weights.items():
        part, _, rest = name.partition(".")
        parts[f"{part}_state_dict"][rest] = tensor
    try:
        optimizer = for_other_programs(content.optimizer, model, schedule.rate(progress.step))
    except OptimizerStateError as error:
        raise CheckpointError(f"{origin}: the optimizer state {error}") from error
    groups = content.optimizer["param_groups"]
    document = {
        **parts,
        **_summary(content),
        "optimizer_state_dict": optimizer,
        "cosine_scheduler_state_dict": cosine_scheduler_state(schedule, progress.step, len(groups)),
    }
    return {
        **{key: document.pop(key) for key in KEYS},
        **document,  # parts of a model that has more than encoder and decoder
        FULL_STATE: {
            "format": FORMAT,
            "last_rates": [group["lr"] for group in groups],
            **{name: getattr(content, name) for name in _CONTENT},
        },
    }


def from_document(document: dict[str, Any], origin: Path) -> CheckpointContent:
    """The content of a checkpoint from the entries of a single file that has `full_state`.

    Raises
    ------
    CheckpointError : an entry is missing, of the wrong kind or shape, or contradicts another one
    """
    full = document[FULL_STATE]
    if full.get("format") != FORMAT:
        raise CheckpointError(
            f"{origin}: {FULL_STATE} has format {full.get('format')}, but this version of the package reads {FORMAT}"
        )
    for name, kind in {**_CONTENT, "last_rates": list}.items():
        if not isinstance(full.get(name), kind):
            raise CheckpointError(f"{origin}: {FULL_STATE} has no usable {name}")
    tensors = sum(len(document[f"{part}_state_dict"]) for part in ("encoder", "decoder"))
    model = configured_model(full["config"], tensors, origin)
    weights = joined_weights(document, model)
    if mismatches := weight_mismatches(model, weights):
        details = "".join(f"\n  {line}" for line in mismatches)
        raise CheckpointError(f"{origin}: the weights do not fit the model configuration in the file:{details}")
    check_registered(full["registered"], model, origin)
    try:
        optimizer = rearranged(document.get("optimizer_state_dict"), model)
        for group, rate in zip(optimizer["param_groups"], full["last_rates"], strict=True):
            group["lr"] = rate
    except ValueError as error:
        raise CheckpointError(f"{origin}: optimizer_state_dict {error}") from error
    content = CheckpointContent(weights=weights, optimizer=optimizer, **{name: full[name] for name in _CONTENT})
    try:
        summary = _summary(content)
        content.schedule.rate(content.progress.step)
        json.dumps([content.config, content.run, content.versions])
    except MALFORMED as error:
        raise CheckpointError(f"{origin}: the settings in {FULL_STATE} cannot be used ({error!r})") from error
    for name, value in summary.items():
        if repr(document.get(name)) != repr(value):
            raise CheckpointError(
                f"{origin}: {name} is {_short(document.get(name))}, but {FULL_STATE} says {_short(value)}. One of them "
                f"was edited; to go by the plain keys, remove {FULL_STATE} from the file"
            )
    return content


# What `full_state` holds of `CheckpointContent`.
_CONTENT: dict[str, type | tuple[type, ...]] = {
    "config": dict,
    "run": dict,
    "registered": dict,
    "scaler": (dict, type(None)),
    "versions": dict,
}


def _summary(content: CheckpointContent) -> dict[str, Any]:
    """The plain numbers of a file, which follow from its full state."""
    history, best, settings = LossHistory(), BestValidation(), content.run["settings"]
    history.load_state_dict(content.registered["loss_history"])
    best.load_state_dict(content.registered["best_validation"])
    return {
        "epoch": content.progress.epochs_recorded,
        "train_losses": history.column("train_loss"),
        "val_losses": history.column("validation_loss"),
        "loss": best.loss,
        "warmup_epochs": settings["warmup_epochs"],
        "total_epochs": settings["epochs"],
        "max_lr": settings["learning_rate"],
    }


def _short(value: Any) -> str:
    return f"a list of {len(value)}" if isinstance(value, list) else repr(value)
