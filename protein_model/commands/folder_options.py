"""The options of the commands that write a model's folder, `export` and `push`, and the writing."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..training.model_card import DEFAULT_LICENCE
from ..which_model import find_model
from .evaluate import JSON_FILE
from .model_option import add_model_option

DTYPES = ("float16", "bfloat16", "float32")


class EvaluationUnusable(UserError, ValueError):
    """What `--evaluation` names is no evaluation of a model."""


def add_folder_options(parser: argparse.ArgumentParser) -> None:
    """Add what determines the folder's content."""
    add_model_option(parser, has_default=False)
    parser.add_argument(
        "--dtype", choices=DTYPES, help="type that the weights are kept in; 16 bits halve the file [as they are]"
    )
    parser.add_argument(
        "--evaluation", nargs="+", default=[], metavar="NAME=FOLDER",
        help="figures for the model card: what was evaluated on, and the --out_dir of evaluate",
    )  # fmt: skip
    parser.add_argument(
        "--hub_license", default=DEFAULT_LICENCE,
        help=f"licence of the weights for the model card, as the Hub names it [{DEFAULT_LICENCE}]",
    )  # fmt: skip


def write_folder(options: argparse.Namespace, target: Path, repository: str | None, with_code: bool = True) -> None:
    """Write the folder that the options ask for; `repository` is its name on the Hub."""
    from ..training.model_folder import write_model_folder

    write_model_folder(
        find_model(options.model),
        target,
        repository,
        options.hub_license,
        dtype=options.dtype,
        with_code=with_code,
        evaluations=_evaluations(options.evaluation),
    )


def _evaluations(given: Sequence[str]) -> dict[str, dict[str, Any]]:
    documents: dict[str, dict[str, Any]] = {}
    for text in given:
        name, separator, folder = text.partition("=")
        if not (name and separator and folder):
            raise EvaluationUnusable(f"--evaluation {text}: give a name and a folder, such as TS50=evaluation")
        if name in documents:
            raise EvaluationUnusable(f"--evaluation {text}: the name {name} is there twice")
        path = Path(folder) / JSON_FILE
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            known = isinstance(document["summary"], dict) and isinstance(document["settings"], dict)
        except FileNotFoundError:
            raise EvaluationUnusable(
                f"--evaluation {text}: has no {JSON_FILE}; give the --out_dir of `python -m protein_model evaluate`"
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EvaluationUnusable(f"--evaluation {text}: {path} cannot be read ({error!r})") from error
        if not known:
            raise EvaluationUnusable(f"--evaluation {text}: {path} was not written by evaluate")
        documents[name] = document
    return documents
