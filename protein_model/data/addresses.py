"""Telling addresses (`s3://bucket/cache`) from paths. What is fetched from them, and how, is left to `remote`."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from .errors import CacheError


def is_address(text: str | Path) -> bool:
    """True for a URL, which no path of a file system is."""
    return isinstance(text, str) and "://" in text


def data_path(text: str) -> Path | str:
    """A `--pdb_path`: an address stays as it is, which a `Path` would not leave it."""
    return text if is_address(text) else Path(text)


def refuse_password(address: str) -> None:
    """Refuse an address that holds a secret: addresses are written to settings files and logs.

    Raises
    ------
    CacheError : says where fsspec looks for it instead
    """
    parts = urlsplit(address)
    if parts.password is not None:
        raise CacheError(
            f"the address {address.replace(parts.password, '...')} has a password in it, which would be written to "
            "settings and logs; put it where fsspec finds it, such as ~/.config/fsspec/ or an environment variable"
        )
