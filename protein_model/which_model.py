"""Which model a person means: by a bare name one that the package ships, else the folder at a path.

Shipped models lie in `weights/<name>/`, as the command `export --without_code` writes them. What is in such a folder is
left to those who load it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from .errors import UserError

WEIGHTS = Path(__file__).resolve().parent / "weights"
DEFAULT_MODEL = "design"
_NEEDED = ("config.json", "model.safetensors")


class ModelNotFound(UserError, FileNotFoundError):
    """A name or a path stands for no trained model."""


def shipped_models() -> dict[str, Path]:
    """Folders of the models that the package ships, by name; those that are there."""
    if not WEIGHTS.is_dir():
        return {}
    return {
        folder.name: folder
        for folder in sorted(WEIGHTS.iterdir())
        if all((folder / name).is_file() for name in _NEEDED)
    }


def find_model(given: str | Path, option: str = "--model") -> Path:
    """Folder of the model that a person named.

    Parameters
    ----------
    given : name of a shipped model, or path of a folder; one that is called like a shipped model needs a separator,
        as in `./design`, or comes as a `Path`
    option : where it was given, for messages

    Raises
    ------
    ModelNotFound : there is no such model; the message lists those that ship
    """
    if isinstance(given, str) and is_bare_name(given):
        shipped = shipped_models()
        if given in shipped:
            return shipped[given]
        if not Path(given).is_dir():
            raise ModelNotFound(
                f"{option} {given}: is neither a model that this package ships ({_listed(shipped)}) nor a folder; give "
                "one of these names, or a folder that training saved, such as checkpoints/best_model"
            )
    folder = Path(given)
    if not (folder / "config.json").is_file():
        raise ModelNotFound(
            f"{option} {folder}: has no config.json; give a folder that training saved, such as checkpoints/best_model,"
            f" or a model that this package ships ({_listed(shipped_models())})"
        )
    return folder


def is_bare_name(given: str) -> bool:
    """Whether nothing in it looks like a path or a repository, so that it may name a shipped model."""
    return bool(given) and not any(mark in given for mark in "/\\~") and given not in (".", "..")


def model_digest(folder: Path) -> str:
    """What tells a model from any other: a digest of the configuration and the weights in a folder."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted([folder / "config.json", *folder.glob("*.safetensors")]):
        with path.open("rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
    return digest.hexdigest()


def _listed(shipped: dict[str, Path]) -> str:
    return ", ".join(shipped) or "it ships none"
