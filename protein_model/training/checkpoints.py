"""Checkpoints that are either committed whole or do not exist, and the way back to the newest good one.

A checkpoint is written into a temporary folder, flushed to disk, sealed with a manifest of sizes and checksums, and
then renamed, in this order, so that whatever stops the process leaves either the whole checkpoint or none. What is
written, and when, is left to `trainer`.

    save_dir/
      checkpoint_epoch_12/   manifest.json · config.json · model.safetensors · settings.json · state/
      checkpoint_step_340/   the same, in the middle of an epoch
      best_model/            the same, of the epoch with the lowest validation loss
      superseded/            checkpoints with more steps than a resume that went back, or has shorter epochs
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from ..data.storage import file_digest, sync_folder
from ..errors import UserError
from ..wording import counted

MANIFEST = "manifest.json"
STATE_FOLDER = "state"
BEST_MODEL = "best_model"
FORMAT = 1
DEFAULT_SAVE_FOLDER = "checkpoints"
SUPERSEDED = "superseded"
LOCK_FILE = ".lock"
LOCK_SECONDS = 30.0  # workers of a run that was just killed hold its lock for some seconds
NAMES_SHOWN = 3  # in a message; long runs have hundreds of checkpoints
PICKLES = (".bin", ".pkl", ".pt")
MID_EPOCH_KEPT = 2  # a save of mid-epoch state is of use only until the next one; the one before is the spare

_TEMPORARY = ".incomplete-"
_REPLACED = ".replaced-"
_CHECKPOINT_NAME = re.compile(r"checkpoint_(epoch|step)_(\d+)")
_TEMPORARY_FILE = re.compile(r"\..+\.png\.\d+|.+\.(json|csv)\.tmp")  # of the loss curve, and of `write_atomically`


class CheckpointError(UserError, RuntimeError):
    """A checkpoint cannot be found or used; the message says which, why and what to do."""


class DamagedCheckpoint(CheckpointError):
    """A file of a checkpoint is not what was written."""


@dataclass(frozen=True)
class Manifest:
    """What a committed checkpoint says of itself.

    Attributes
    ----------
    name : it was committed under
    step : optimizer steps done
    epoch : epochs done
    registered : names of the registered objects, in order
    versions : packages that wrote it
    files : relative path -> (bytes, SHA-256)
    """

    name: str
    step: int
    epoch: int
    registered: list[str]
    versions: dict[str, str]
    files: dict[str, tuple[int, str]]


def flush_file(path: Path) -> None:
    """Ask the operating system to write a file to disk."""
    with path.open("rb+") as handle:
        os.fsync(handle.fileno())


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a checkpoint.

    Raises
    ------
    DamagedCheckpoint : there is none, or it is not what was written
    """
    path = folder / MANIFEST
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        body, checksum = document["checkpoint"], document["sha256"]
    except FileNotFoundError:
        raise DamagedCheckpoint(f"{folder}: {MANIFEST} is missing, so this is not a complete checkpoint") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedCheckpoint(f"{path}: cannot be read ({error})") from error
    if hashlib.sha256(_canonical(body)).hexdigest() != checksum:
        raise DamagedCheckpoint(f"{path}: its content does not match its checksum")
    if body["format"] != FORMAT:
        raise CheckpointError(f"{path}: format {body['format']}, but this version of the package reads format {FORMAT}")
    files = {name: (int(size), str(digest)) for name, (size, digest) in body["files"].items()}
    return Manifest(body["name"], body["step"], body["epoch"], body["registered"], body["versions"], files)


def verify(folder: Path) -> Manifest:
    """Check every file of a checkpoint against its manifest.

    Raises
    ------
    DamagedCheckpoint : names the first file that is missing, has another size or another checksum
    """
    manifest = read_manifest(folder)
    for name, (size, digest) in manifest.files.items():
        if (problem := file_problem(folder / name, size, digest)) is not None:
            raise DamagedCheckpoint(problem)
    for path in strangers(folder, manifest):
        raise DamagedCheckpoint(f"{path}: is not part of this checkpoint")
    return manifest


def refuse_code(folder: Path) -> None:
    """Make sure that no pickled file of a checkpoint could run code when it is loaded.

    Raises
    ------
    DamagedCheckpoint : names the file that holds anything but tensors and plain values
    """
    for path in sorted((folder / STATE_FOLDER).iterdir()):
        if (problem := pickle_problem(path)) is not None:
            raise DamagedCheckpoint(problem)


def file_problem(path: Path, size: int, digest: str) -> str | None:
    """What is wrong with a file that should have `size` bytes and the SHA-256 `digest`; None for nothing."""
    if not path.is_file():
        return f"{path}: is missing"
    if path.stat().st_size != size:
        return f"{path}: has {path.stat().st_size} bytes instead of {size}"
    if file_digest(path) != digest:
        return f"{path}: its content does not match its checksum"
    return None


def strangers(folder: Path, manifest: Manifest) -> list[Path]:
    """State files that the manifest does not list: somebody else put them there, and `load_state` might read them."""
    unlisted = _files_below(folder / STATE_FOLDER, folder) - set(manifest.files)
    return [folder / name for name in sorted(unlisted)]


def pickle_problem(path: Path) -> str | None:
    """Why a file must not be unpickled; None where it is no pickle, or holds tensors and plain values only."""
    if path.suffix not in PICKLES:
        return None
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler meets arbitrary bytes here, and any failure means refusal
        return f"{path}: holds more than tensors and plain values ({error})"
    return None


class CheckpointStore:
    """The checkpoints of one run in one folder. Only process 0 calls the methods that write.

    Parameters
    ----------
    folder : save folder of the run, made when first written to
    """

    def __init__(self, folder: Path):
        self.folder = folder
        # One lock object a folder and process, however many stores there are.
        self._lock = FileLock(folder / LOCK_FILE, is_singleton=True)

    def lock(self, say: Callable[[str], None]) -> None:
        """Make sure that no other run writes into the folder, until `unlock` or the end of the process.

        Raises
        ------
        CheckpointError : another run does
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=LOCK_SECONDS)
        except Timeout:
            raise CheckpointError(
                f"{self.folder}: another run is writing checkpoints there; wait for its end, or give another --save_dir"
            ) from None
        except NotImplementedError:
            say(f"{self.folder} is on a file system without locks: make sure that no other run writes there")
        except OSError as error:
            raise CheckpointError(
                f"--save_dir {self.folder}: cannot be written to ({error.strerror or error}); give another one"
            ) from error

    def unlock(self) -> None:
        """Let other runs write into the folder."""
        self._lock.release(force=True)

    def temporary(self, name: str) -> Path:
        """Where the checkpoint `name` is while it is being written."""
        return self.folder / f"{_TEMPORARY}{name}"

    def begin(self, name: str) -> Path:
        """Make an empty temporary folder to write the checkpoint `name` into."""
        temporary = self.temporary(name)
        if temporary.exists():
            shutil.rmtree(temporary)
        (temporary / STATE_FOLDER).mkdir(parents=True)
        return temporary

    def commit(self, temporary: Path, step: int, epoch: int, registered: list[str], versions: dict[str, str]) -> Path:
        """Seal what was written into `temporary` and give it its name. Returns the finished checkpoint."""
        name = temporary.name[len(_TEMPORARY) :]
        files: dict[str, list[Any]] = {}
        for relative in sorted(_files_below(temporary, temporary)):
            path = temporary / relative
            flush_file(path)
            files[relative] = [path.stat().st_size, file_digest(path)]
        body = {
            "format": FORMAT,
            "name": name,
            "step": step,
            "epoch": epoch,
            "registered": registered,
            "versions": versions,
            "files": files,
        }
        document = {"sha256": hashlib.sha256(_canonical(body)).hexdigest(), "checkpoint": body}
        manifest = temporary / MANIFEST
        manifest.write_text(json.dumps(document, indent=1), encoding="utf-8")
        flush_file(manifest)
        sync_folder(temporary / STATE_FOLDER)
        sync_folder(temporary)
        final, replaced = self.folder / name, self.folder / f"{_REPLACED}{name}"
        if final.exists():
            # Two renames: a crash between them leaves the old one under its other name, and `recover` puts it back.
            if replaced.exists():
                shutil.rmtree(replaced)
            os.rename(final, replaced)
        os.rename(temporary, final)
        sync_folder(self.folder)
        if replaced.exists():
            shutil.rmtree(replaced)
        return final

    def abandon(self, temporary: Path) -> None:
        """Remove what a failed save left."""
        shutil.rmtree(temporary, ignore_errors=True)

    def recover(self) -> list[str]:
        """Clean up after an interrupted save. Returns what was done, in words."""
        done: list[str] = []
        if not self.folder.is_dir():
            return done
        for path in sorted(self.folder.iterdir()):
            if path.name.startswith(_REPLACED):
                final = self.folder / path.name[len(_REPLACED) :]
                if final.exists():
                    shutil.rmtree(path)
                else:
                    os.rename(path, final)
                    done.append(f"{final}: put back after an interrupted save")
            elif path.name.startswith(_TEMPORARY):
                shutil.rmtree(path)
                done.append(f"{path}: removed, left by an interrupted save")
            elif _TEMPORARY_FILE.fullmatch(path.name):
                path.unlink()
        return done

    def leftovers(self) -> list[Path]:
        """What interrupted saves left; `recover` cleans it up."""
        found = self.folder.iterdir() if self.folder.is_dir() else []
        return sorted(path for path in found if path.name.startswith((_TEMPORARY, _REPLACED)))

    def checkpoints(self) -> list[Path]:
        """Numbered checkpoints, the one with the most steps first; `best_model` is not among them."""
        if not self.folder.is_dir():
            return []
        found = [path for path in self.folder.iterdir() if _CHECKPOINT_NAME.fullmatch(path.name) and path.is_dir()]
        return sorted(found, key=_rank, reverse=True)

    def resumable(self) -> list[Path]:
        """Numbered checkpoints and the best model, the one with the most steps first."""
        best = self.folder / BEST_MODEL
        found = [*self.checkpoints(), *([best] if best.is_dir() else [])]
        return sorted(found, key=_rank, reverse=True)

    def prune(self, keep_last: int | None, keep_every: int | None) -> None:
        """Remove old checkpoints, after a new one is committed.

        Parameters
        ----------
        keep_last : newest checkpoints to keep, None for all; mid-epoch ones go anyway when two newer ones exist
        keep_every : epochs whose number is a multiple of this are kept for good
        """
        mid_epoch = 0
        for newer, path in enumerate(self.checkpoints()):
            match = _CHECKPOINT_NAME.fullmatch(path.name)
            assert match is not None
            kind, number = match[1], int(match[2])
            mid_epoch += kind == "step"
            permanent = kind == "epoch" and keep_every is not None and number % keep_every == 0
            outdated = keep_last is not None and newer >= keep_last
            superseded = kind == "step" and mid_epoch > MID_EPOCH_KEPT
            if (outdated or superseded) and not permanent:
                # The manifest goes first: what is left of an interrupted removal is then no checkpoint any more.
                (path / MANIFEST).unlink(missing_ok=True)
                shutil.rmtree(path)

    def set_aside_after(self, step: int) -> list[Path]:
        """Move checkpoints with more steps than `step` out of the way of a run that went back; gives the new paths."""
        moved: list[Path] = []
        # The newest last: a kill in between leaves none that is newer than what the run goes on from.
        for path in reversed(self.resumable()):
            if _step_of(path) > step:
                target = self.folder / SUPERSEDED / path.name
                target.parent.mkdir(exist_ok=True)
                if target.exists():
                    shutil.rmtree(target)
                os.rename(path, target)
                moved.append(target)
        return moved

    def newest_good(self, problems: list[str]) -> tuple[Path, Manifest]:
        """The checkpoint with the most steps that verifies; those that do not are added to `problems`.

        Raises
        ------
        CheckpointError : there is none
        """
        # Those whose manifest cannot be read may be the newest: they are looked at first, to be named as damaged.
        for path in sorted(self.resumable(), key=lambda path: _steps_told(path) is not None):
            try:
                manifest = verify(path)
                refuse_code(path)
                if manifest.name != path.name:  # renamed, so that its name says nothing of its place in the run
                    raise DamagedCheckpoint(f"{path / MANIFEST}: is that of {manifest.name}")
                return path, manifest
            except CheckpointError as error:
                problems.append(str(error))
        details = "".join(f"\n  {problem}" for problem in problems)
        raise CheckpointError(f"{self.folder}: no usable checkpoint{details}")


@dataclass(frozen=True)
class ResumePoint:
    """What `--resume_from` came to.

    Attributes
    ----------
    folder : checkpoint to load
    manifest : of that checkpoint
    problems : damaged checkpoints that were stepped over, one sentence each
    steps_lost : optimizer steps between the checkpoint that was asked for and this one; None where unknown
    """

    folder: Path
    manifest: Manifest
    problems: list[str]
    steps_lost: int | None


def save_folder(resume_from: str | None, save_dir: str | None) -> Path:
    """Where a run saves: `save_dir` where it is given, else the folder that is resumed from, else the default."""
    if save_dir is not None:
        return Path(save_dir)
    if resume_from is not None and Path(resume_from).exists():
        path = Path(resume_from)
        return path.parent if path.is_file() or is_checkpoint(path) else path
    return Path(DEFAULT_SAVE_FOLDER)


def locate(resume_from: str, save_dir: Path) -> ResumePoint | None:
    """Find the checkpoint that `--resume_from` means, verified.

    Parameters
    ----------
    resume_from : "latest", "best_model", a checkpoint folder or a save folder; names are looked for below `save_dir`
        too
    save_dir : save folder of the run

    Returns
    -------
    None if "latest" was asked for and the run has no checkpoint yet

    Raises
    ------
    CheckpointError : nothing usable; the message lists what was tried
    """
    if resume_from == "latest":
        store = CheckpointStore(save_dir)
        return _newest(store) if store.resumable() else None
    path = Path(resume_from)
    if not path.exists() and (save_dir / resume_from).exists():
        path = save_dir / resume_from
    if not path.exists():
        raise CheckpointError(f"--resume_from {resume_from}: there is no such checkpoint; {_listing(save_dir)}")
    if path.is_file():
        raise CheckpointError(f"--resume_from {resume_from}: is a file; give a checkpoint folder")
    if not is_checkpoint(path):
        return _newest(CheckpointStore(path))
    try:
        manifest = verify(path)
        refuse_code(path)
        return ResumePoint(path, manifest, [], 0)
    except DamagedCheckpoint as error:
        problems = [str(error)]
        found, manifest = CheckpointStore(path.parent).newest_good(problems)
        return ResumePoint(found, manifest, _unique(problems), _steps_between(path, manifest))


def _listing(save_dir: Path) -> str:
    """The newest checkpoints of a run by name, for messages."""
    present = [folder.name for folder in CheckpointStore(save_dir).checkpoints()]
    if not present:
        return f"{save_dir} has no checkpoint"
    more = len(present) - NAMES_SHOWN
    others = f" and {counted(more, 'older one')}" if more > 0 else ""
    return f"{save_dir} has {', '.join(present[:NAMES_SHOWN])}{others}; give one of them, or latest"


def is_checkpoint(path: Path) -> bool:
    """A folder that is, or was, a checkpoint; it may be damaged."""
    return is_checkpoint_name(path.name) or (path / MANIFEST).exists()


def is_checkpoint_name(name: str) -> bool:
    """A name that a run gives to a checkpoint."""
    return _CHECKPOINT_NAME.fullmatch(name) is not None or name == BEST_MODEL


def _newest(store: CheckpointStore) -> ResumePoint:
    problems: list[str] = []
    found, manifest = store.newest_good(problems)
    steps = [_steps_told(path) for path in store.resumable()]
    known = [step for step in steps if step is not None]
    lost = max(known) - manifest.step if len(known) == len(steps) else None
    return ResumePoint(found, manifest, problems, lost)


def _steps_between(wanted: Path, manifest: Manifest) -> int | None:
    steps = _steps_told(wanted)
    return None if steps is None else steps - manifest.step


def _steps_told(path: Path) -> int | None:
    """Steps done by a checkpoint as its manifest has it, None where that cannot be read or is another checkpoint's."""
    try:
        manifest = read_manifest(path)
    except CheckpointError:
        return None
    return manifest.step if manifest.name == path.name else None


def _step_of(path: Path) -> int:
    """Steps done by a checkpoint; where its manifest is damaged, what its name tells, if anything."""
    steps = _steps_told(path)
    match = _CHECKPOINT_NAME.fullmatch(path.name)
    return steps if steps is not None else int(match[2]) if match and match[1] == "step" else 0


def _rank(path: Path) -> tuple[int, int, str]:
    return rank(_step_of(path), path.name)


def rank(step: int, name: str) -> tuple[int, int, str]:
    """By steps done; of several after the same step, one of a finished and validated epoch comes first."""
    kinds = ("checkpoint_step_", BEST_MODEL, "checkpoint_epoch_")
    kind = next((number for number, prefix in enumerate(kinds) if name.startswith(prefix)), -1)
    return step, kind, name


def _files_below(folder: Path, root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in folder.rglob("*") if path.is_file()}


def _canonical(body: dict[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def _unique(lines: list[str]) -> list[str]:
    return list(dict.fromkeys(lines))
