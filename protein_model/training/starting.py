"""A new run that begins with the weights of a trained model instead of random ones: fine-tuning.

Unlike a resume it has epochs, loss history, best validation and optimizer state of its own; the architecture is that of
the model. What goes on where a checkpoint stands is left to `resuming`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import UserError, first_line
from ..loading import NoModel, pretrained
from ..model.configuration import ProteinModelConfig
from ..model.modeling import ProteinModel
from ..which_model import find_model, is_bare_name
from .arguments import GivenOptions, SettingsError, sizes_of
from .compatibility import ARCHITECTURE, WITHOUT_OPTION


class StartError(UserError, ValueError):
    """What `--start_from` names is no model of this package."""


def architecture_options(given: GivenOptions) -> dict[str, Any]:
    """Options that the model of `--start_from` settles; none without it.

    Raises
    ------
    ModelNotFound, StartError : there is no such model
    SettingsError : an option of this launch says otherwise
    """
    model_name = given.values.get("start_from")
    if model_name is None:
        return {}
    config = _config(model_name)
    settled = {name: getattr(config, name) for name in ARCHITECTURE if name not in WITHOUT_OPTION}
    asked = {**sizes_of(given.values), **given.values}
    for name, value in settled.items():
        wanted = asked.get(name, value)
        if wanted != value:
            raise SettingsError(
                f"--{name} {wanted} does not fit the model of --start_from {model_name}, which has {name} {value}: "
                "leave the option out, or train a new model"
            )
    return settled


def starting_model(model_name: str, dropout: float) -> ProteinModel:
    """The model that a run begins with, in 32 bits whatever its weights are kept in.

    Parameters
    ----------
    model_name : one that the package ships, folder that training saved, or repository on the Hugging Face Hub
    dropout : of this run
    """
    try:
        return pretrained(_place(model_name), dropout=dropout)
    except NoModel as error:
        raise _no_model(model_name, error) from error


def _place(model_name: str) -> str | Path:
    """Folder, or repository on the Hub, which has a separator in its name; so a misspelt name asks no network."""
    return find_model(model_name, "--start_from") if is_bare_name(model_name) else model_name


def _config(model_name: str) -> ProteinModelConfig:
    place = _place(model_name)
    try:
        content, _ = ProteinModelConfig.get_config_dict(place)
        if content.get("model_type") != ProteinModelConfig.model_type:
            raise ValueError(f"its config.json describes a model of type {content.get('model_type')!r}")
        return ProteinModelConfig(**content)
    except (OSError, ValueError, TypeError) as error:
        raise _no_model(model_name, error) from error


def _no_model(model_name: str, error: Exception) -> StartError:
    return StartError(
        f"--start_from {model_name}: is no model of this package; give one that it ships, a folder that training "
        f"saved, such as checkpoints/best_model, or a repository on the Hub ({first_line(error)})"
    )
