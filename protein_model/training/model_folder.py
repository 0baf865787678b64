"""A trained model as a folder that loads anywhere: weights, configuration, the model's own code, its card.

Such a folder needs no installation of this package: Transformers imports the copied code when it is told to trust it.
Those that lie inside the package leave the code out. How a folder gets to the Hub is left to `hub`, the type of the
weights to `weight_types`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ..data.storage import file_digest
from ..errors import UserError
from ..model import configuration
from ..which_model import model_digest
from .checkpoints import MANIFEST, DamagedCheckpoint, read_manifest
from .layout import CONFIG_FILE, SETTINGS_FILE, WEIGHTS_FILE
from .model_card import CARD_FILE, model_card
from .weight_types import convert_weights, describe_weights

LOSS_CURVE_FILE = "loss_curve.png"
HISTORY_FILE = "history.json"
LICENCE_FILE = "LICENSE"

_MODEL_CODE = Path(configuration.__file__).parent
_AUTO_MAP = {"AutoConfig": "configuration.ProteinModelConfig", "AutoModel": "modeling.ProteinModel"}
_PACKAGE_ROOT = Path(__file__).resolve().parents[2]
_DISTRIBUTION = "protein-model"


class NotAModelFolder(UserError, FileNotFoundError):
    """A folder holds no trained model."""


class TargetInUse(UserError, FileExistsError):
    """A folder to write has other content, which is not to be lost, or cannot be made."""


class EvaluationOfAnother(UserError, ValueError):
    """Figures for the card were measured with other weights."""


def add_model_code(folder: Path) -> None:
    """Make a folder with `config.json` load by `AutoModel.from_pretrained(folder, trust_remote_code=True)`.

    Copies the files of `protein_model/model` beside the configuration, and names its classes in it.
    """
    for source in sorted(_MODEL_CODE.glob("*.py")):
        if source.name != "__init__.py":
            shutil.copyfile(source, folder / source.name)
    _change_config(folder, auto_map=_AUTO_MAP)


def _change_config(folder: Path, **changes: Any) -> None:
    """Set entries of `config.json`, and remove those that are None."""
    path = folder / CONFIG_FILE
    config = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    config = {name: value for name, value in config.items() if name not in changes or value is not None}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_model_folder(
    model: Path,
    target: Path,
    repository: str | None,
    licence: str,
    *,
    dtype: str | None = None,
    with_code: bool = True,
    evaluations: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Write what is published of a model. `target` has all of it or stays as it was.

    Parameters
    ----------
    model : folder with `config.json` and `model.safetensors`, such as `best_model`; loss history and loss curve are
        taken from the folder above it, settings and checksums from itself, where they are there
    target : folder to make; a folder that was written by this function is replaced
    repository : name on the Hub, for the card
    licence : identifier of the weights' licence, for the card
    dtype : of the weights in the file, one of `weight_types.DTYPES`; by default what they are
    with_code : copy the model's own code; without it this package is needed to load the model
    evaluations : content of `evaluation.json` by the name of what was evaluated on, for the card

    Raises
    ------
    NotAModelFolder : one of the two files is missing
    DamagedCheckpoint : a file is not what its checkpoint's manifest says; also where the model was replaced by a better
        one while it was being read, or its weights cannot be read
    WeightsDoNotFit : `dtype` cannot hold a weight
    TargetInUse : `target` has other content, or cannot be made
    EvaluationOfAnother : an evaluation is neither of `model` nor of what is written
    """
    target = target.resolve()
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (model / name).is_file():
            raise NotAModelFolder(
                f"--model {model}: has no {name}; give a folder that training saved, such as checkpoints/best_model"
            )
    _refuse_other_content(target, model)
    temporary = target.with_name(f".{target.name}.incomplete")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise TargetInUse(f"{target}: no folder can be made there ({error.strerror}); give another one") from error
    # The manifest is read first: if the folder is replaced from here on, the checksums tell.
    manifest = read_manifest(model) if (model / MANIFEST).is_file() else None
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        shutil.copyfile(model / name, temporary / name)
        if manifest is not None and manifest.files[name] != (
            (temporary / name).stat().st_size,
            file_digest(temporary / name),
        ):
            raise DamagedCheckpoint(f"{model / name}: its content does not match its checksum")
    try:
        describe_weights(temporary / WEIGHTS_FILE)
    except SafetensorError as error:
        raise DamagedCheckpoint(f"{model / WEIGHTS_FILE}: cannot be read ({error}); copy the model again") from error
    if dtype is not None:
        convert_weights(temporary / WEIGHTS_FILE, dtype)
    # Transformers makes the model of this type, whatever the file has: positions of atoms need 32 bits.
    _change_config(temporary, dtype="float32", auto_map=None)
    if with_code:
        add_model_code(temporary)
        (temporary / LICENCE_FILE).write_text(_licence_text(), encoding="utf-8")
    _refuse_figures_of_others(evaluations or {}, {model_digest(model), model_digest(temporary)})
    curve = model.parent / LOSS_CURVE_FILE
    if curve.is_file():
        shutil.copyfile(curve, temporary / LOSS_CURVE_FILE)
    card = model_card(
        config=json.loads((temporary / CONFIG_FILE).read_text(encoding="utf-8")),
        run=_optional_json(model / SETTINGS_FILE),
        history=_optional_json(model.parent / HISTORY_FILE),
        epoch=manifest.epoch if manifest is not None else None,
        repository=repository,
        licence=licence,
        has_curve=curve.is_file(),
        name=target.name,
        weights=describe_weights(temporary / WEIGHTS_FILE),
        with_code=with_code,
        evaluations=evaluations or {},
    )
    (temporary / CARD_FILE).write_text(card, encoding="utf-8")
    # At no time is there a folder of that name with a part of its files.
    replaced = target.with_name(f".{target.name}.replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if target.exists():
        os.replace(target, replaced)
    os.replace(temporary, target)
    shutil.rmtree(replaced, ignore_errors=True)


def _refuse_other_content(target: Path, model: Path) -> None:
    """Replace nothing but what `write_model_folder` has written."""
    if target == model.resolve():
        raise TargetInUse(f"{target}: is the model itself; give another folder")
    if target.exists() and not target.is_dir():
        raise TargetInUse(f"{target}: is a file; give a folder")
    own = {CONFIG_FILE, WEIGHTS_FILE, LICENCE_FILE, LOSS_CURVE_FILE, CARD_FILE, "__pycache__"}
    found = sorted(path.name for path in target.glob("*"))
    others = [name for name in found if CONFIG_FILE not in found or (name not in own and not name.endswith(".py"))]
    if others:
        raise TargetInUse(f"{target}: holds {others[0]}, which is not of such a folder; give another one")


def _refuse_figures_of_others(evaluations: Mapping[str, Mapping[str, Any]], digests: set[str]) -> None:
    for name, document in evaluations.items():
        if document["settings"].get("model_digest") not in digests:
            raise EvaluationOfAnother(
                f"--evaluation {name}: was not measured with this model, but with "
                f"{document['settings'].get('model', 'designs of another tool')} as it was then; run "
                "`python -m protein_model evaluate` on this one"
            )


def _optional_json(path: Path) -> dict | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _licence_text() -> str:
    """Licence of the copied code: from the checkout, else from the installed distribution."""
    beside = _PACKAGE_ROOT / LICENCE_FILE
    if beside.is_file():
        return beside.read_text(encoding="utf-8")
    for file in metadata.files(_DISTRIBUTION) or []:
        if file.name == LICENCE_FILE:
            return file.read_text(encoding="utf-8")
    raise FileNotFoundError(f"{beside}: the licence of this package, which goes with its code, is missing")
