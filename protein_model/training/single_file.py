"""The single-file `.pt` format: its keys, and reading and writing it so that no file can run code or do damage.

The keys in `KEYS` are those of a plain training loop; any program with torch can read or write them. What a bitwise
resume needs beyond them is one more entry, `full_state`. What the values mean for this package is left to
`interchange`, files that have the plain keys only to `plain_keys`.

    epoch                          epochs finished
    encoder_state_dict             parameters of the encoder, names without "encoder."
    decoder_state_dict             parameters of the decoder
    optimizer_state_dict           of AdamW as torch writes it; every group has `param_names` beside `params`, in the
                                   same order, so that state number i belongs to the i-th name over all groups
    cosine_scheduler_state_dict    what `torch.optim.lr_scheduler.CosineAnnealingLR` would hold, stepped once for every
                                   optimizer step after the warm-up
    train_losses, val_losses       nats per scored residue, one for each finished epoch
    loss                           the best validation loss
    warmup_epochs, total_epochs    of the learning-rate schedule
    max_lr                         its peak
"""

from __future__ import annotations

import math
import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data.storage import sync_folder
from ..wording import counted
from .checkpoints import CheckpointError, DamagedCheckpoint, flush_file
from .numpy_numbers import READ_AS_PLAIN
from .schedule import Schedule

KEYS = (
    "epoch",
    "encoder_state_dict",
    "decoder_state_dict",
    "optimizer_state_dict",
    "cosine_scheduler_state_dict",
    "train_losses",
    "val_losses",
    "loss",
    "warmup_epochs",
    "total_epochs",
    "max_lr",
)
REQUIRED = ("epoch", "encoder_state_dict", "decoder_state_dict")
FULL_STATE = "full_state"

_ZIP_START = b"PK\x03\x04"
_NUMBER_IN_NAME = re.compile(r"epoch_?(\d+)")
_REFUSED_CLASS = re.compile(r"GLOBAL (\S+)")
_UNPICKLER_ERROR = re.compile(r"WeightsUnpickler error:\s*(.+)")
_MAPPINGS = (
    "encoder_state_dict",
    "decoder_state_dict",
    "optimizer_state_dict",
    "cosine_scheduler_state_dict",
    FULL_STATE,
)
_LISTS = ("train_losses", "val_losses")
_NUMBERS = ("epoch", "loss", "warmup_epochs", "total_epochs", "max_lr")
_MAY_BE_INFINITE = ("loss",)  # before the first validation


# What comes of a value of an unexpected kind in a file that somebody else wrote.
MALFORMED = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class NotACheckpoint(CheckpointError):
    """A file or folder is something else than a checkpoint."""


def read_single_file(path: Path) -> dict[str, Any]:
    """The content of a single-file checkpoint, checked for damage, hidden code, required keys and kinds of values.

    Entries that are None count as missing. Losses that are NumPy numbers or tensors come as Python numbers.

    Raises
    ------
    NotACheckpoint : the file does not hold what a checkpoint holds
    DamagedCheckpoint : it does not match its checksums, is cut off, or holds more than tensors and plain values
    """
    _check_sums(path)
    try:
        with torch.serialization.safe_globals(READ_AS_PLAIN):
            document = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler meets arbitrary bytes here, and any failure means refusal
        raise DamagedCheckpoint(f"{path}: {_refusal(error)}") from error
    if not isinstance(document, dict):
        raise NotACheckpoint(f"{path}: holds a {type(document).__name__}, not the dictionary of a checkpoint")
    document = {name: value for name, value in document.items() if value is not None}
    missing = [name for name in REQUIRED if name not in document]
    if missing:
        raise NotACheckpoint(
            f"{path}: is not a training checkpoint, it has no {', no '.join(missing)} (it has "
            f"{', '.join(map(str, document)) or 'nothing'})"
        )
    return {**document, **_checked(path, document)}


def write_single_file(path: Path, document: dict[str, Any]) -> None:
    """Write a single-file checkpoint so that a crash leaves the whole file or none.

    Raises
    ------
    CheckpointError : it cannot be written
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            torch.save(document, temporary)
            flush_file(temporary)
            os.replace(temporary, path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:  # torch turns a full disk into a RuntimeError
        raise CheckpointError(f"{path}: cannot be written ({error})") from error


def epochs_finished(document: Mapping[str, Any], file: Path) -> tuple[int, str | None]:
    """Epochs that are finished, and a remark where `epoch` is the last one counted from 0, as many programs save it.

    Raises
    ------
    NotACheckpoint : `epoch` is no count
    """
    epoch = document["epoch"]
    if not math.isfinite(epoch) or epoch != int(epoch) or epoch < 0:
        raise NotACheckpoint(f"{file}: epoch is {epoch!r}, not a number of epochs")
    epoch = int(epoch)
    losses = document.get("train_losses") or document.get("val_losses")
    named = _NUMBER_IN_NAME.search(file.stem)
    if losses and len(losses) == epoch + 1:
        evidence = f"with {counted(epoch + 1, 'loss', 'losses')}"
    elif not losses and named is not None and int(named[1]) == epoch + 1:
        evidence = f"in a file named {file.name}"
    else:
        return epoch, None
    finished = counted(epoch + 1, "epoch is", "epochs are")
    return epoch + 1, f"epoch is {epoch} {evidence}, so it is counted from 0: {finished} finished"


def cosine_scheduler_state(schedule: Schedule, step: int, groups: int) -> dict[str, Any]:
    """What torch's `CosineAnnealingLR` would hold after `step` optimizer steps, the warm-up not counted.

    The schedule of a run is a function of the step and needs none of this; it is for programs that expect it.

    Parameters
    ----------
    groups : parameter groups of the optimizer
    """
    begin = schedule.start_step + schedule.warmup_steps
    period = max(1, schedule.total_steps - begin)
    # Beyond its period torch's cosine climbs again; the schedule does not.
    done = min(max(0, step - begin), period)
    return {
        "T_max": period,
        "eta_min": schedule.peak * schedule.final_fraction,
        "base_lrs": [schedule.peak] * groups,
        "last_epoch": done,
        "_step_count": done + 1,
        "_is_initial": False,
        "_get_lr_called_within_step": False,
        "_last_lr": [schedule.rate(step)] * groups,
    }


def is_dense(value: Any) -> bool:
    """An ordinary tensor, with numbers in memory; files can hold sparse, quantised and empty-shell ones as well."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
    )


def _check_sums(path: Path) -> None:
    """Compare every part of the file with the checksum beside it, which torch itself does not do."""
    try:
        with path.open("rb") as handle:
            start = handle.read(len(_ZIP_START))
        if start == _ZIP_START:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise DamagedCheckpoint(f"{path}: {damaged} does not match its checksum")
        # The format before torch 1.6 is a bare pickle, which has no checksums.
        elif start[:1] != pickle.PROTO:
            raise NotACheckpoint(f"{path}: is not a file that torch.save wrote")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise DamagedCheckpoint(f"{path}: is damaged ({error})") from error


def _refusal(error: Exception) -> str:
    """Why a file was not loaded; without torch's advice to load it unsafely."""
    refused = _REFUSED_CLASS.search(str(error))
    if refused is not None:
        return (
            f"holds {refused[1]}, and only tensors and plain values are loaded, because anything else can run code; "
            "nothing was loaded"
        )
    reason = _UNPICKLER_ERROR.search(str(error))
    lines = (reason[1] if reason is not None else str(error)).splitlines()
    return f"cannot be loaded ({lines[0] if lines else type(error).__name__})"


def _checked(path: Path, document: Mapping[str, Any]) -> dict[str, Any]:
    """The known entries of a file in the kinds that they must have."""
    checked: dict[str, Any] = {}
    for name in (*_MAPPINGS, *_LISTS, *_NUMBERS):
        if name not in document:
            continue
        value = document[name]
        if name in _MAPPINGS:
            kind, good = "dictionary", isinstance(value, dict)
        elif name in _LISTS:
            value = [_number(entry) for entry in value] if isinstance(value, (list, tuple)) else None
            kind, good = "list of numbers", value is not None and None not in value
        else:
            value = _number(value)
            kind, good = "number", value is not None and (name in _MAY_BE_INFINITE or math.isfinite(value))
        if not good:
            raise NotACheckpoint(f"{path}: {name} is not a {kind}")
        checked[name] = value
    for name in ("encoder_state_dict", "decoder_state_dict"):
        for key, value in checked[name].items():
            if not isinstance(key, str) or not is_dense(value):
                raise NotACheckpoint(f"{path}: {name}[{key!r}] is not a tensor")
    return checked


def _number(value: Any) -> float | int | None:
    if is_dense(value) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value
