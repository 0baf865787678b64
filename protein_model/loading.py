"""A trained model from its folder, or its repository on the Hub, as design and training both begin with it.

Which place a person means is told by `which_model`; what to do where there is no model is told by those who load it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from .errors import first_line
from .model.modeling import ProteinModel


class NoModel(ValueError):
    """What is at a place is no model of this package, or not all of it; the message says in one line what is wrong."""


def pretrained(place: str | Path, **options: Any) -> ProteinModel:
    """The model at a place, in 32 bits whatever its weights are kept in.

    16 bits hold neither the positions of atoms nor the steps of an optimizer.

    Parameters
    ----------
    place : folder, or repository on the Hugging Face Hub
    options : what the configuration is to say instead of what it says there, such as `dropout`

    Raises
    ------
    NoModel : files are missing, cut off, or do not belong together
    """
    try:
        model: ProteinModel = ProteinModel.from_pretrained(place, dtype=torch.float32, **options)
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise NoModel(first_line(error)) from error
    return model
