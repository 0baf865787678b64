"""A trained model as a folder that loads anywhere: weights, configuration, the model's own code, its card.

Such a folder needs no installation of this package: Transformers imports the copied code when it is told to trust it.
How the folder gets to the Hub is left to `hub`.
"""

from __future__ import annotations

import json
import os
import shutil
from importlib import metadata
from pathlib import Path

from ..data.storage import file_digest
from ..errors import UserError
from ..model import configuration
from .checkpoints import MANIFEST, DamagedCheckpoint, read_manifest
from .layout import CONFIG_FILE, SETTINGS_FILE, WEIGHTS_FILE
from .model_card import CARD_FILE, model_card

LOSS_CURVE_FILE = "loss_curve.png"
HISTORY_FILE = "history.json"
LICENCE_FILE = "LICENSE"

_MODEL_CODE = Path(configuration.__file__).parent
_AUTO_MAP = {"AutoConfig": "configuration.ProteinModelConfig", "AutoModel": "modeling.ProteinModel"}
_PACKAGE_ROOT = Path(__file__).resolve().parents[2]
_DISTRIBUTION = "protein-model"


class NotAModelFolder(UserError, FileNotFoundError):
    """A folder holds no trained model."""


def add_model_code(folder: Path) -> None:
    """Make a folder with `config.json` load by `AutoModel.from_pretrained(folder, trust_remote_code=True)`.

    Copies the files of `protein_model/model` beside the configuration, and names its classes in it.
    """
    for source in sorted(_MODEL_CODE.glob("*.py")):
        if source.name != "__init__.py":
            shutil.copyfile(source, folder / source.name)
    path = folder / CONFIG_FILE
    config = json.loads(path.read_text(encoding="utf-8"))
    config["auto_map"] = _AUTO_MAP
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_model_folder(model: Path, target: Path, repository: str | None, licence: str) -> None:
    """Write what is published of a model. `target` has all of it or does not exist.

    Parameters
    ----------
    model : folder with `config.json` and `model.safetensors`, such as `best_model`; loss history and loss curve are
        taken from the folder above it, settings and checksums from itself, where they are there
    target : folder to make; what was there is replaced
    repository : name on the Hub, for the card
    licence : identifier of the weights' licence, for the card

    Raises
    ------
    NotAModelFolder : one of the two files is missing
    DamagedCheckpoint : a file is not what its checkpoint's manifest says; also where the model was replaced by a better
        one while it was being read
    """
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (model / name).is_file():
            raise NotAModelFolder(
                f"--model {model}: has no {name}; give a folder that training saved, such as checkpoints/best_model"
            )
    temporary = target.with_name(f".{target.name}.incomplete")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    # The manifest is read first: if the folder is replaced from here on, the checksums tell.
    manifest = read_manifest(model) if (model / MANIFEST).is_file() else None
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        shutil.copyfile(model / name, temporary / name)
        if manifest is not None and manifest.files[name] != (
            (temporary / name).stat().st_size,
            file_digest(temporary / name),
        ):
            raise DamagedCheckpoint(f"{model / name}: its content does not match its checksum")
    add_model_code(temporary)
    (temporary / LICENCE_FILE).write_text(_licence_text(), encoding="utf-8")
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
    )
    (temporary / CARD_FILE).write_text(card, encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    os.replace(temporary, target)


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
