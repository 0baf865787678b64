"""Checkpoints at an address: which there are, and one of them fetched, verified, into a save folder.

How they came there is left to `mirror`, what is done with one that was fetched to `resuming`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from ..data.errors import CacheError
from ..data.remote import Check, download, file_system
from ..data.storage import sync_folder
from .checkpoints import (
    BEST_MODEL,
    MANIFEST,
    STATE_FOLDER,
    CheckpointError,
    CheckpointStore,
    DamagedCheckpoint,
    Manifest,
    file_problem,
    flush_file,
    is_checkpoint_name,
    rank,
    read_manifest,
    verify,
)

LATEST = "latest"
Say = Callable[[str], None]


def split_address(address: str) -> tuple[str, str | None]:
    """Folder of checkpoints that an address means, and the name of one of them; None for the newest."""
    folder, _, name = address.rstrip("/").rpartition("/")
    if name == LATEST:
        return folder, None
    return (folder, name) if is_checkpoint_name(name) else (address.rstrip("/"), None)


def names_at(address: str) -> list[str]:
    """Names of the checkpoints in a folder at an address, whole or not; none if there is no such folder.

    Raises
    ------
    Exception : whatever the file system has for a failure
    """
    system, root = file_system(address)
    system.invalidate_cache()
    try:
        entries = system.ls(root, detail=False)
    except FileNotFoundError:
        return []
    return sorted(name for entry in entries if is_checkpoint_name(name := str(entry).rstrip("/").rpartition("/")[2]))


def fetch_checkpoint(address: str, save_dir: Path, say: Say) -> Path | None:
    """Fetch the checkpoint that an address means into a save folder, and with the newest one also the best model.

    Parameters
    ----------
    address : of a checkpoint, or of a folder of them (with or without `/latest`) for the newest that is intact
    save_dir : where it goes, under its own name

    Returns
    -------
    its folder; None where a folder of checkpoints was asked for and has none

    Raises
    ------
    CheckpointError : it cannot be had, or `save_dir` has another one of its name
    """
    there, name = split_address(address)
    try:
        names = [name] if name is not None else names_at(there)
    except CacheError:
        raise
    except Exception as error:  # each file system has errors of its own
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"--resume_from {address}: cannot be looked at ({reason})") from error
    problems: list[str] = []
    found: list[tuple[Manifest, str]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for candidate in names:
            folder = Path(scratch, candidate)
            folder.mkdir()
            try:
                _download(f"{there}/{candidate}", MANIFEST, folder, lambda path: None, say)
                manifest = read_manifest(folder)
                if manifest.name != candidate:
                    raise DamagedCheckpoint(f"{there}/{candidate}/{MANIFEST}: is that of {manifest.name}")
                found.append((manifest, candidate))
            except (CheckpointError, CacheError) as error:
                problems.append(str(error).replace(scratch, there))
    for manifest, candidate in sorted(found, key=lambda entry: rank(entry[0].step, entry[1]), reverse=True):
        try:
            folder = _fetch(there, candidate, manifest, CheckpointStore(save_dir), say)
        except (DamagedCheckpoint, CacheError) as error:
            problems.append(str(error))
            continue
        for problem in problems:
            say(f"WARNING: damaged checkpoint: {problem}")
        if name is None:
            _fetch_best_model(there, found, CheckpointStore(save_dir), say)
        return folder
    if not names:
        return None
    details = "".join(f"\n  {problem}" for problem in problems)
    raise CheckpointError(f"--resume_from {address}: no usable checkpoint{details}")


def _fetch_best_model(there: str, found: list[tuple[Manifest, str]], store: CheckpointStore, say: Say) -> None:
    """The run goes on without it, too, but would have no best model before there is a better one."""
    for manifest, name in found:
        if name == BEST_MODEL:
            try:
                _fetch(there, name, manifest, store, say)
            except (CheckpointError, CacheError) as error:
                say(f"WARNING: the best model so far stays where it is: {error}")


def _fetch(there: str, name: str, manifest: Manifest, store: CheckpointStore, say: Say) -> Path:
    final = store.folder / name
    if final.exists():
        if read_manifest(final) == manifest:
            return final
        raise CheckpointError(
            f"{final} is another checkpoint than {there}/{name}, which is to be fetched; give another --save_dir"
        )
    temporary = store.begin(name)
    try:
        size = sum(size for size, _ in manifest.files.values())
        say(f"Fetching {there}/{name}, {size / 1e6:,.1f} MB")
        for relative, (size, digest) in manifest.files.items():
            parts = PurePosixPath(relative).parts
            if relative.startswith("/") or not parts or ".." in parts:
                raise DamagedCheckpoint(f"{there}/{name}/{MANIFEST}: names a file {relative!r} outside of its folder")
            (temporary / relative).parent.mkdir(parents=True, exist_ok=True)

            def problem(path: Path, size: int = size, digest: str = digest) -> str | None:
                return file_problem(path, size, digest)

            _download(f"{there}/{name}", relative, temporary, problem, say)
        _download(f"{there}/{name}", MANIFEST, temporary, lambda path: None, say)
        verify(temporary)
        for relative in manifest.files:
            flush_file(temporary / relative)
        flush_file(temporary / MANIFEST)
        sync_folder(temporary / STATE_FOLDER)
        sync_folder(temporary)
        os.rename(temporary, final)
        sync_folder(store.folder)
    finally:
        store.abandon(temporary)
    return final


def _download(address: str, name: str, folder: Path, check: Check, say: Say) -> None:
    try:
        download(address, name, folder / name, check, lambda: False, say, anew=True)
    except FileNotFoundError as error:
        raise DamagedCheckpoint(f"{address}/{name}: is missing, so this is not a complete checkpoint") from error
