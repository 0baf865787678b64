"""The option `--model` of the commands that use a trained model."""

from __future__ import annotations

import argparse

from ..which_model import DEFAULT_MODEL, shipped_models

_TEXT = "a model that ships with the package{names}, or a folder of a trained model, such as run/best_model"


def add_model_option(parser: argparse._ActionsContainer, has_default: bool = True) -> None:
    """Add `--model`, a text that `which_model.find_model` understands.

    Parameters
    ----------
    has_default : without the option the shipped model is used; else the option must be given
    """
    shipped = ", ".join(shipped_models())
    text = _TEXT.format(names=f" ({shipped})" if shipped else "")
    if has_default:
        parser.add_argument("--model", default=DEFAULT_MODEL, help=f"{text} [{DEFAULT_MODEL}]")
    else:
        parser.add_argument("--model", required=True, help=text)
