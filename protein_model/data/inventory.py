"""Which source files are unchanged since they were last read, and what their contents hash to.

A source item is what is read as a whole: a file, or a block of lines of a chain set.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..structures.files import NOT_REGULAR
from .chain_set import scan_blocks
from .errors import CacheError
from .sources import Sources

# A file that is changed twice within the time resolution of the file system (up to 2 s on FAT, about 10 ms on ext4) can
# have the same size and times before and after. So a hash taken that soon after the last change is not relied on: the
# next build takes it again. Git calls this the racy case and treats its index the same way.
SETTLING_TIME_NS = 2_000_000_000
UNREADABLE = "unreadable: "  # in place of a hash, followed by the reason


@dataclass(frozen=True)
class SourceItem:
    """A file, or a block of lines of one, and what was known of it when it was last read.

    Attributes
    ----------
    path : of the file, relative to the data folder
    location : of the file
    block : number of the block of lines, 0 for a whole file
    start, length : bytes of the block; length is None for a whole file
    digest : hash of the content, or `UNREADABLE` with the reason; None while unknown
    status : (size, mtime_ns, ctime_ns, inode) of the file when it was hashed, None if it could not be had
    hashed_ns : time of hashing
    """

    path: str
    location: str
    block: int = 0
    start: int = 0
    length: int | None = None
    digest: str | None = None
    status: tuple[int, int, int, int] | None = None
    hashed_ns: int = 0

    @property
    def key(self) -> tuple[str, int]:
        """What items are sorted and found by."""
        return self.path, self.block

    @property
    def problem(self) -> str | None:
        """Why the content could not be hashed."""
        if self.digest is not None and self.digest.startswith(UNREADABLE):
            return self.digest.removeprefix(UNREADABLE)
        return None

    @property
    def settled(self) -> bool:
        """The hash still holds for as long as the file's status stays the same."""
        return (
            self.digest is not None
            and self.problem is None
            and self.status is not None
            and self.status[2] + SETTLING_TIME_NS <= self.hashed_ns
        )

    def to_json(self) -> dict[str, Any]:
        """All but the location, which depends on where the data folder is mounted."""
        values = asdict(self)
        del values["location"]
        values["status"] = None if self.status is None else list(self.status)
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any], location: str) -> SourceItem:
        """Inverse of `to_json`."""
        status = values["status"]
        return cls(**{**values, "location": location, "status": None if status is None else tuple(status)})


def file_status(location: str) -> tuple[int, int, int, int]:
    """(size, mtime_ns, ctime_ns, inode) of a file."""
    status = os.stat(location)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def hashed(item: SourceItem) -> SourceItem:
    """A whole file with the hash of what is in it now. A file that cannot be read gets the reason instead."""
    now = time.time_ns()
    try:
        if not stat.S_ISREG(os.stat(item.location).st_mode):  # a pipe would be waited for without end
            return replace(item, digest=f"{UNREADABLE}{NOT_REGULAR}", status=None, hashed_ns=now)
        status = file_status(item.location)
        content = Path(item.location).read_bytes()
    except OSError as error:
        return replace(item, digest=f"{UNREADABLE}{error.strerror}", status=None, hashed_ns=now)
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    return replace(item, digest=digest, status=status, hashed_ns=now)


def take_inventory(sources: Sources, recorded: Iterable[Mapping[str, Any]]) -> list[SourceItem]:
    """The items of `sources`, with those hashes that are known to be right still.

    Parameters
    ----------
    recorded : items as `SourceItem.to_json` gives them, from earlier builds; later ones win
    """
    known = {(values["path"], values["block"]): values for values in recorded}
    items: list[SourceItem] = []
    for file in sources.files:
        location = str(file.location)
        if sources.kind == "chain_set":
            items.extend(_blocks(file.path, location, known))
            continue
        fresh = SourceItem(file.path, location)
        values = known.get(fresh.key)
        if values is not None:
            old = SourceItem.from_json(values, location)
            if old.settled and _unchanged(old):
                fresh = old
        items.append(fresh)
    return items


def _unchanged(item: SourceItem) -> bool:
    try:
        return file_status(item.location) == item.status
    except OSError:
        return False


def _blocks(path: str, location: str, known: Mapping[tuple[str, int], Mapping[str, Any]]) -> list[SourceItem]:
    old: list[SourceItem] = []
    while (path, len(old)) in known:
        old.append(SourceItem.from_json(known[path, len(old)], location))
    now = time.time_ns()
    try:
        status = file_status(location)
        whole = sum(item.length or 0 for item in old) == status[0]  # else the last blocks were not recorded yet
        if old and whole and all(item.settled and item.status == status for item in old):
            return old
        blocks = scan_blocks(Path(location))
    except OSError as error:
        raise CacheError(f"--pdb_path {location}: cannot be read: {error.strerror}") from error
    return [
        SourceItem(path, location, number, block.start, block.length, block.digest, status, now)
        for number, block in enumerate(blocks)
    ]
