"""A new run that begins with the weights of a trained model instead of random ones: fine-tuning.

Unlike a resume it has epochs, loss history, best validation and optimizer state of its own; the architecture is that of
the model. What goes on where a checkpoint stands is left to `resuming`.
"""

from __future__ import annotations

from typing import Any

from ..errors import UserError
from ..model.configuration import ProteinModelConfig
from ..model.modeling import ProteinModel
from .arguments import GivenOptions, SettingsError, sizes_of
from .compatibility import ARCHITECTURE, WITHOUT_OPTION


class StartError(UserError, ValueError):
    """What `--start_from` names is no model of this package."""


def architecture_options(given: GivenOptions) -> dict[str, Any]:
    """Options that the model of `--start_from` settles; none without it.

    Raises
    ------
    StartError : there is no such model
    SettingsError : an option of this launch says otherwise
    """
    address = given.values.get("start_from")
    if address is None:
        return {}
    config = _config(address)
    settled = {name: getattr(config, name) for name in ARCHITECTURE if name not in WITHOUT_OPTION}
    asked = {**sizes_of(given.values), **given.values}
    for name, value in settled.items():
        wanted = asked.get(name, value)
        if wanted != value:
            raise SettingsError(
                f"--{name} {wanted} does not fit the model of --start_from {address}, which has {name} {value}: leave "
                "the option out, or train a new model"
            )
    return settled


def starting_model(address: str, dropout: float) -> ProteinModel:
    """The model that a run begins with.

    Parameters
    ----------
    address : folder that training saved, or repository on the Hugging Face Hub
    dropout : of this run
    """
    try:
        model: ProteinModel = ProteinModel.from_pretrained(address, dropout=dropout)
    except (OSError, ValueError) as error:
        raise _no_model(address, error) from error
    return model


def _config(address: str) -> ProteinModelConfig:
    try:
        content, _ = ProteinModelConfig.get_config_dict(address)
        if content.get("model_type") != ProteinModelConfig.model_type:
            raise ValueError(f"its config.json describes a model of type {content.get('model_type')!r}")
        return ProteinModelConfig(**content)
    except (OSError, ValueError) as error:
        raise _no_model(address, error) from error


def _no_model(address: str, error: Exception) -> StartError:
    return StartError(
        f"--start_from {address}: is no model of this package; give a folder that training saved, such as "
        f"checkpoints/best_model, or a repository on the Hub ({str(error).splitlines()[0]})"
    )
