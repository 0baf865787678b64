"""A copy of the save folder's checkpoints at an address, kept up beside the training, which never waits for it.

A checkpoint is copied once it is committed: all its files first, its manifest last, so that a copy without a manifest
is none. Nothing that goes wrong on the way stops the training; it is told, and tried again later. Checkpoints that the
run removes are removed there too, but never one that this save folder has not brought there.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..data.addresses import is_address, refuse_password
from ..data.remote import file_system
from ..data.storage import write_atomically
from .arguments import Settings
from .checkpoints import MANIFEST, CheckpointError, CheckpointStore, read_manifest

RECORD_FILE = "mirror.json"
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 30.0, 1800.0
WAIT_AT_THE_END_SECONDS = 5.0  # between attempts, when a process is kept for them alone
PATIENCE_AT_THE_END_SECONDS = 600.0
PATIENCE_WHEN_STOPPED_SECONDS = 15.0  # launchers kill 30 s after a signal
_OUTBOX = "mirror"


class Mirror:
    """Copies checkpoints to an address from a thread of its own.

    Parameters
    ----------
    store : of the run
    address : of the folder that gets the copies
    say : prints a line
    first_wait_seconds : after the first failure; doubled after each further one

    Raises
    ------
    CacheError : fsspec has no file system for the address
    """

    def __init__(
        self,
        store: CheckpointStore,
        address: str,
        say: Callable[[str], None],
        first_wait_seconds: float = FIRST_WAIT_SECONDS,
    ):
        file_system(address)
        self.address = address
        self._store = store
        self._say = say
        self._first_wait = first_wait_seconds
        self._sent, self._adopted = _read_record(store.folder, self.address)
        self._failures = 0
        self._problem = ""
        self._lasting = False  # until a person has changed something
        self._wake = threading.Event()
        self._closing = self._given_up = False
        # A daemon: whatever it is waiting for, the process can end.
        self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)

    def start(self) -> None:
        """Begin with what is in the save folder already."""
        self._wake.set()
        self._thread.start()

    def look(self) -> None:
        """There are new checkpoints, or old ones were removed."""
        self._wake.set()

    def close(self, finished: bool, patience_seconds: float | None = None) -> None:
        """Wait for what is still to be copied, and say what is not.

        Parameters
        ----------
        finished : training is over; without it, the process has to end soon
        patience_seconds : longest time to wait
        """
        if patience_seconds is None:
            patience_seconds = PATIENCE_AT_THE_END_SECONDS if finished else PATIENCE_WHEN_STOPPED_SECONDS
        self._closing = True
        self._wake.set()
        left = [name for name, _ in self._waiting()]
        if left and finished:
            self._say(f"Copying {', '.join(left)} to {self.address}")
        self._thread.join(patience_seconds)
        self._given_up = True
        left = [name for name, _ in self._waiting()]
        if left:
            reason = f": {self._problem}" if self._problem else ""
            self._say(
                f"WARNING: not copied to {self.address}{reason}: {', '.join(left)}. They are in {self._store.folder}; "
                "the next launch copies them."
            )

    def _run(self) -> None:
        due = time.monotonic()
        while True:
            patience = max(0.0, due - time.monotonic()) if self._failures else None
            if self._closing:
                patience = min(self._first_wait, WAIT_AT_THE_END_SECONDS)
            self._wake.wait(patience)
            self._wake.clear()
            if time.monotonic() >= due or self._closing:
                due = time.monotonic() + self._work()
            # What was committed while the last round was under way is waiting still.
            if self._closing and (self._given_up or self._lasting or not self._waiting()):
                return

    def _work(self) -> float:
        """Copy and remove what is to be copied and removed. Seconds to wait before it is tried again."""
        try:
            for name, identity in self._waiting():
                if self._given_up:
                    return 0.0
                if self._send(name, identity):
                    self._say(f"Copied {name} to {self.address}")
            for name in [name for name in self._sent if not (self._store.folder / name).exists()]:
                self._remove(name)
                del self._sent[name]
                self._write_record()
        except Exception as error:  # each file system has errors of its own; each is told
            wait = min(self._first_wait * 2 ** min(self._failures, 30), LONGEST_WAIT_SECONDS)
            self._failures += 1
            self._lasting = isinstance(error, CheckpointError)
            told = self._problem
            self._problem = str(error) if self._lasting else f"{type(error).__name__}: {error}"
            if not (self._closing and self._problem == told):
                self._say(
                    f"WARNING: checkpoints cannot be copied to {self.address}: {self._problem}. Training goes on; "
                    f"it is tried again in {wait:,.0f} s."
                )
            return wait
        finally:
            self._store.abandon(self._store.temporary(_OUTBOX))
        self._failures, self._problem, self._lasting = 0, "", False
        return 0.0

    def _waiting(self) -> list[tuple[str, str]]:
        """Name and identity of the checkpoints that are not at the address as they are here, the newest first."""
        waiting = []
        for path in self._store.resumable():
            identity = _identity(path)
            if identity is not None and self._sent.get(path.name) != identity:
                waiting.append((path.name, identity))
        return waiting

    def _send(self, name: str, identity: str) -> bool:
        """Copy one checkpoint. False if it was removed or replaced here meanwhile."""
        outbox = self._store.temporary(_OUTBOX) / name
        try:
            _link_all(self._store.folder / name, outbox)
            if _identity(outbox) != identity:
                return False
        except OSError:
            return False  # the training removes and replaces checkpoints as it goes on
        files = read_manifest(outbox).files
        system, root = file_system(self.address)
        system.invalidate_cache()
        target = f"{root}/{name}"
        if _is_there(system, f"{target}/{MANIFEST}"):
            if system.cat_file(f"{target}/{MANIFEST}") == (outbox / MANIFEST).read_bytes():
                self._note(name, identity)
                return False
            if name not in self._sent and not self._adopted:
                raise CheckpointError(
                    f"{name} there is of another run; give another --mirror_checkpoints_to, or remove it there"
                )
            system.rm_file(f"{target}/{MANIFEST}")
        for relative in (*files, MANIFEST):
            path = outbox / relative
            there = f"{target}/{relative}"
            system.makedirs(there.rpartition("/")[0], exist_ok=True)
            system.put_file(str(path), there)
            system.invalidate_cache()
            if (size := system.info(there).get("size")) not in (None, path.stat().st_size):
                raise ConnectionError(f"{name}/{relative} has {size:,} of {path.stat().st_size:,} bytes there")
        self._note(name, identity)
        return True

    def _remove(self, name: str) -> None:
        system, root = file_system(self.address)
        target = f"{root}/{name}"
        system.invalidate_cache()
        if _is_there(system, f"{target}/{MANIFEST}"):
            system.rm_file(f"{target}/{MANIFEST}")
        if _is_there(system, target):
            system.rm(target, recursive=True)

    def _note(self, name: str, identity: str) -> None:
        self._sent[name] = identity
        self._write_record()

    def _write_record(self) -> None:
        _write_record(self._store.folder, self.address, self._sent, self._adopted)


def _read_record(save_dir: Path, address: str) -> tuple[dict[str, str], bool]:
    """What a save folder has brought to an address, and whether all that is there belongs to its run."""
    try:
        record = json.loads((save_dir / RECORD_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, False
    except ValueError as error:
        raise CheckpointError(f"{save_dir / RECORD_FILE}: cannot be read ({error}); remove it") from error
    return (record["sent"], record["adopted"]) if record["address"] == address else ({}, False)


def _write_record(save_dir: Path, address: str, sent: dict[str, str], adopted: bool) -> None:
    document = {"address": address, "sent": sent, "adopted": adopted}
    write_atomically(save_dir / RECORD_FILE, json.dumps(document, indent=1))


def adopt(save_dir: Path, address: str) -> None:
    """Note that the run in a save folder goes on from a copy at an address, and may replace the copies there."""
    sent, _ = _read_record(save_dir, address)
    _write_record(save_dir, address, sent, True)


def mirror_address(text: str) -> str:
    """The address that `--mirror_checkpoints_to` means; a path is one, too."""
    return text.rstrip("/") if is_address(text) else f"file://{Path(text).resolve()}"


def mirror_of(settings: Settings, store: CheckpointStore, say: Callable[[str], None]) -> Mirror | None:
    """The mirror that the options ask for, not started yet."""
    if settings.mirror_checkpoints_to is None:
        return None
    refuse_password(settings.mirror_checkpoints_to)
    return Mirror(store, mirror_address(settings.mirror_checkpoints_to), say)


def _identity(folder: Path) -> str | None:
    """What tells a checkpoint from others of its name; None if it is none."""
    try:
        return (folder / MANIFEST).read_text(encoding="utf-8").partition('"sha256": "')[2][:64] or None
    except OSError:
        return None


def _is_there(system: Any, path: str) -> bool:
    """Unlike `exists` of fsspec, which takes any failure for a no."""
    try:
        system.info(path)
        return True
    except FileNotFoundError:
        return False


def _link_all(folder: Path, target: Path) -> None:
    """The files of a folder at one instant, by hard links where there are such: replacing it then changes nothing."""
    shutil.rmtree(target, ignore_errors=True)

    def link(source: str, destination: str) -> str:
        try:
            os.link(source, destination)
        except OSError:
            shutil.copy2(source, destination)
        return destination

    shutil.copytree(folder, target, copy_function=link)
