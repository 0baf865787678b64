"""Everything that a checkpoint folder holds, in memory; read from a folder, or written as a new, committed one.

This module knows which file of a checkpoint holds what. Checksums and commits are left to `checkpoints`, the
single-file format to `interchange`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.utils.logging import disable_progress_bar

from ..model.configuration import ProteinModelConfig
from ..model.modeling import ProteinModel
from ..wording import counted
from .averaging import WeightAverage
from .checkpoints import BEST_MODEL, STATE_FOLDER, CheckpointError, CheckpointStore, refuse_code, verify
from .layout import CONFIG_FILE, OPTIMIZER_FILE, SCALER_FILE, SETTINGS_FILE, WEIGHTS_FILE, registered_file
from .model_folder import add_model_code
from .progress import BestValidation, LossHistory, TrainingProgress
from .schedule import Schedule
from .single_file import MALFORMED


@dataclass
class CheckpointContent:
    """What a checkpoint holds.

    Attributes
    ----------
    config : of the model
    run : settings, data, shards and versions, as in `settings.json`
    weights : of the model, by name
    optimizer : state dictionary of AdamW
    registered : name -> state of each registered object, in order
    scaler : state of the gradient scaler, where the run has 16-bit gradients
    versions : packages that wrote it
    """

    config: dict[str, Any]
    run: dict[str, Any]
    weights: dict[str, Tensor]
    optimizer: dict[str, Any]
    registered: dict[str, dict[str, Any]]
    scaler: dict[str, Any] | None
    versions: dict[str, str]

    @property
    def progress(self) -> TrainingProgress:
        """Where the run stands."""
        progress = TrainingProgress(1, 1, 0)
        progress.load_state_dict(self.registered["progress"])
        return progress

    @property
    def is_best(self) -> bool:
        """These are the weights with the lowest validation loss so far."""
        progress, best = self.progress, self.registered["best_validation"]
        at_its_end = progress.step == progress.epochs_recorded * progress.steps_per_epoch
        return at_its_end and progress.epochs_recorded == best["epoch"] > 0

    @property
    def schedule(self) -> Schedule:
        """Learning rate of the run."""
        return Schedule.from_dict(self.run["schedule"])

    @property
    def name(self) -> str:
        """What a checkpoint folder with this content is called."""
        progress = self.progress
        if progress.step == progress.epochs_recorded * progress.steps_per_epoch:
            return f"checkpoint_epoch_{progress.epochs_recorded}"
        return f"checkpoint_step_{progress.step}"


def read_content(folder: Path) -> CheckpointContent:
    """All of a checkpoint folder, after it has been verified.

    Raises
    ------
    DamagedCheckpoint : a file is not what was written, or could run code
    """
    manifest = verify(folder)
    refuse_code(folder)
    state = folder / STATE_FOLDER
    known = {WEIGHTS_FILE, OPTIMIZER_FILE, SCALER_FILE, *map(registered_file, range(len(manifest.registered)))}
    unknown = sorted(path.name for path in state.iterdir() if path.name not in known)
    if unknown:
        raise CheckpointError(f"{state / unknown[0]}: this version of the package does not know what it holds")
    try:
        return CheckpointContent(
            config=json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")),
            run=json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8")),
            weights=load_file(state / WEIGHTS_FILE),
            optimizer=_load(state / OPTIMIZER_FILE),
            registered={name: _load(state / registered_file(i)) for i, name in enumerate(manifest.registered)},
            scaler=_load(state / SCALER_FILE) if (state / SCALER_FILE).exists() else None,
            versions=manifest.versions,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: cannot be read ({error})") from error


def write_content(content: CheckpointContent, store: CheckpointStore, name: str) -> Path:
    """Commit a checkpoint with this content, or find that it is there already. Returns its folder.

    Raises
    ------
    CheckpointError : it cannot be written, or the store has a different checkpoint of that name
    """
    final = store.folder / name
    if final.exists():
        try:
            present = read_content(final)
        except CheckpointError:
            present = None  # damaged; it is replaced
        if present is not None:
            if not same_state(present, content):
                raise CheckpointError(
                    f"{final}: is there already and holds another state; nothing was written. Move it away or choose "
                    "another folder"
                )
            return final
    temporary = None
    try:
        temporary = store.begin(name)
        _write_files(content, temporary)
        if name == BEST_MODEL:
            add_model_code(temporary)
        progress = content.progress
        registered = list(content.registered)
        return store.commit(temporary, progress.step, progress.epochs_recorded, registered, content.versions)
    except (
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
        SafetensorError,
    ) as error:
        if temporary is not None:
            store.abandon(temporary)
        raise CheckpointError(f"{final}: cannot be written ({error})") from error


def same_state(one: CheckpointContent, other: CheckpointContent) -> bool:
    """Both would go on in the same way: everything but settings and versions is equal, bit by bit."""
    loose = ("config", "run", "versions")
    fields = [field.name for field in dataclasses.fields(CheckpointContent) if field.name not in loose]
    return all(_equal(getattr(one, name), getattr(other, name)) for name in fields)


def configured_model(saved: dict[str, Any], tensors: int, origin: Path) -> ProteinModel:
    """The model of a saved configuration, without memory for its weights.

    Of unknown entries of the configuration nothing is taken: some would name code to load.

    Parameters
    ----------
    tensors : weights that there are; no model has more layers

    Raises
    ------
    CheckpointError : a value is out of its range
    """
    known = set(signature(ProteinModelConfig).parameters) - {"kwargs"}
    try:
        layers = max(saved[name] for name in ("num_encoder_layers", "num_decoder_layers"))
        if layers > tensors:
            raise ValueError(f"it has {counted(layers, 'layer')} for {counted(tensors, 'tensor')}")
        return empty_model(ProteinModelConfig(**{name: value for name, value in saved.items() if name in known}))
    except MALFORMED as error:
        raise CheckpointError(f"{origin}: its model configuration cannot be used ({error!r})") from error


def empty_model(config: ProteinModelConfig) -> ProteinModel:
    """The model without memory for its weights: names and shapes only."""
    with torch.device("meta"):
        return ProteinModel(config)


def weight_mismatches(model: ProteinModel, weights: dict[str, Tensor]) -> list[str]:
    """How weights differ from what the model needs, one line for each tensor."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    lines = []
    for name, shape in expected.items():
        if name not in weights:
            lines.append(f"{name}: is missing, shape {shape} in the model")
        elif tuple(weights[name].shape) != shape:
            lines.append(f"{name}: shape {tuple(weights[name].shape)} in the file, {shape} in the model")
    lines += [
        f"{name}: shape {tuple(tensor.shape)} in the file, not in the model"
        for name, tensor in weights.items()
        if name not in expected
    ]
    return lines


def joined_weights(document: dict[str, Any], model: ProteinModel) -> dict[str, Tensor]:
    """The weights of a single file under the names of the whole model; with storage of their own each."""
    return {
        f"{part}.{name}": tensor.detach().clone()
        for part, _ in model.named_children()
        for name, tensor in document.get(f"{part}_state_dict", {}).items()
    }


def check_registered(registered: dict[str, dict[str, Any]], model: ProteinModel, origin: Path) -> None:
    """Let every known registered object load its state once, so that a bad file is refused before it is used.

    Raises
    ------
    CheckpointError : names the object
    """
    progress = TrainingProgress(1, 1, 0)
    trial = {
        "progress": progress.load_state_dict,
        "loss_history": LossHistory().load_state_dict,
        "best_validation": BestValidation().load_state_dict,
        "weight_average": lambda state: _check_average(state, model),
    }
    for name, load in trial.items():
        try:
            load(registered[name])
            if min(progress.steps_per_epoch, progress.shards) < 1:
                raise ValueError("it counts less than one step or shard")
        except KeyError as error:
            raise CheckpointError(f"{origin}: the state of {name} has no {error}") from error
        except MALFORMED as error:
            raise CheckpointError(f"{origin}: the state of {name} cannot be used ({error})") from error


def _check_average(state: dict[str, Any], model: ProteinModel) -> None:
    int(state["updates"])
    average = state["average"]
    for name, parameter in model.named_parameters():
        if not isinstance(average[name], Tensor) or average[name].shape != parameter.shape:
            raise ValueError(f"{name} is not a tensor of shape {tuple(parameter.shape)}")


def _write_files(content: CheckpointContent, folder: Path) -> None:
    disable_progress_bar()  # the library's own, one for each file that it writes
    state = folder / STATE_FOLDER
    save_file(content.weights, state / WEIGHTS_FILE, metadata={"format": "pt"})
    torch.save(content.optimizer, state / OPTIMIZER_FILE)
    for index, entry in enumerate(content.registered.values()):
        torch.save(entry, state / registered_file(index))
    if content.scaler is not None:
        torch.save(content.scaler, state / SCALER_FILE)
    # As the trainer does: beside the state, the model with averaged weights, ready for use.
    model = configured_model(content.config, len(content.weights), folder)
    average = WeightAverage.named_weights(content.registered["weight_average"], content.weights)
    model.save_pretrained(folder, state_dict=average)
    (folder / SETTINGS_FILE).write_text(json.dumps(content.run, indent=1), encoding="utf-8")


def _load(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and _same_bits(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(value, other[key]) for key, value in one.items())
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return bool(one == other)


def _same_bits(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.contiguous().view(-1).view(torch.uint8), other.contiguous().view(-1).view(torch.uint8))
