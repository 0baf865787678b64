"""Files of a folder at an address (`s3://...`, `gs://...`, `hf://datasets/...`), fetched whole and verified.

Everything that `fsspec` understands is understood here, with the credentials that it finds by itself. It is loaded when
there is an address, and no sooner. A file that was fetched is kept; several processes that want it fetch it once. Which
files there are and what must be in them is left to `cache`.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import CacheError, CacheInterrupted
from .locking import Locked
from .progress import Progress
from .storage import sync_folder

ATTEMPTS = 7
FIRST_WAIT_SECONDS = 1.0  # doubled after each failure: about a minute in all
POLL_SECONDS = 0.2
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
# These do not pass by themselves.
_LASTING = (ImportError, NotImplementedError, PermissionError, IsADirectoryError, NotADirectoryError)
_LASTING_STATUS = frozenset({400, 401, 403, 404, 410})
_LOCAL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})

Check = Callable[[Path], "str | None"]  # what is wrong with a fetched file


class RemoteFolder:
    """A folder at an address, and its copy on this machine.

    Parameters
    ----------
    address : URL of the folder
    folder : of the copy, exists
    """

    def __init__(self, address: str, folder: Path):
        self.address = address.rstrip("/")
        self.folder = folder

    def fetch(
        self, name: str, check: Check, should_stop: Callable[[], bool], display: Progress, always: bool = False
    ) -> None:
        """Make sure that a file is here; see `download`.

        Parameters
        ----------
        name : of the file, without folders
        always : fetch it although it is here
        """
        if not _NAME.fullmatch(name):  # or somebody else's list of contents could write anywhere
            raise CacheError(f"{self.address}: its list of contents names a file {name!r}, which is no plain name")
        target = self.folder / name
        if target.exists() and not always:
            return
        asked = time.time()
        with Locked(self.folder / f".{name}.lock", should_stop, display):
            if target.exists() and (not always or target.stat().st_mtime >= asked):
                return  # another process has just done it
            temporary = self.folder / f".{name}.fetched"
            try:
                download(self.address, name, temporary, check, should_stop, display.say, always)
                with open(temporary, "rb+") as handle:
                    os.fsync(handle.fileno())
                os.replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)
            sync_folder(self.folder)


def download(
    address: str,
    name: str,
    target: Path,
    check: Check,
    should_stop: Callable[[], bool],
    say: Callable[[str], None],
    anew: bool = False,
) -> None:
    """Copy a file from an address, again and again until it is right or there is no hope.

    Parameters
    ----------
    address : of the folder
    name : of the file there
    target : is overwritten; what is there after a failure is of no use
    check : says what is wrong with what came, None for nothing; it is fetched again then
    should_stop : polled between attempts
    say : tells failures
    anew : the file may have changed since this process looked for it

    Raises
    ------
    FileNotFoundError : there is no such file at the address
    CacheError : it cannot be had
    CacheInterrupted : `should_stop` returned True
    """
    for attempt in range(1, ATTEMPTS + 1):
        if should_stop():
            raise CacheInterrupted(f"stopped while {address}/{name} was to be fetched")
        try:
            _copy(address, name, target, anew=anew or attempt > 1)
            problem = check(target)
            if problem is None:
                return
            lasting = False
        except (FileNotFoundError, CacheError):
            raise
        except Exception as error:  # each file system has errors of its own; each is told
            if isinstance(error, OSError) and error.errno in _LOCAL:
                raise CacheError(
                    f"{target}: cannot be written ({error.strerror}); choose a folder that has room"
                ) from error
            problem = f"{type(error).__name__}: {error}"
            lasting = isinstance(error, _LASTING) or _status(error) in _LASTING_STATUS
        if lasting or attempt == ATTEMPTS:
            tried = "" if lasting else f" ({attempt} attempts)"
            raise CacheError(f"{address}/{name} cannot be had{tried}: {problem}")
        wait = FIRST_WAIT_SECONDS * 2 ** (attempt - 1)
        say(f"{address}/{name}: {problem}; tried again in {wait:g} s")
        _pause(wait, should_stop)


def _copy(address: str, name: str, target: Path, anew: bool) -> None:
    system, root = file_system(address)
    path = f"{root}/{name}"
    if anew:
        system.invalidate_cache()  # of listings
    size = system.info(path).get("size")
    system.get_file(path, str(target))
    found = target.stat().st_size
    if size is not None and found != size:  # a connection that breaks is no error to every file system
        raise ConnectionError(f"{found:,} of {size:,} bytes came")


def file_system(address: str) -> tuple[Any, str]:
    """The file system of `fsspec` for an address, and what the folder is called in it, without a slash at its end.

    Raises
    ------
    CacheError : there is none; the message says what to install
    """
    import fsspec

    try:
        system, root = fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise CacheError(f"{address}: {error}") from error  # it says what to install
    except ValueError as error:
        raise CacheError(f"{address}: is no address that fsspec understands ({error})") from error
    return system, root.rstrip("/")


def _status(error: BaseException) -> int | None:
    """HTTP status of an error, where it has one."""
    for holder in (error, getattr(error, "response", None)):
        for name in ("status_code", "status"):
            if isinstance(value := getattr(holder, name, None), int):
                return value
    return None


def _pause(seconds: float, should_stop: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and not should_stop():
        time.sleep(min(left, POLL_SECONDS))
