"""The files of a cache at an address -> their copies here, each with the size, checksum and columns that it must have.

How a file comes is left to `remote`, what is in the files to `cache`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..wording import counted
from .errors import CacheError, CacheInterrupted
from .progress import Progress
from .remote import RemoteFolder
from .shards import open_shard
from .storage import file_digest

AT_ONCE = 4  # connections of a process; a machine has as many times more as it has processes
POLL_SECONDS = 0.2


def fetch_file(
    remote: RemoteFolder, record: Mapping[str, Any], should_stop: Callable[[], bool], display: Progress
) -> None:
    """Fetch one Arrow file.

    Parameters
    ----------
    record : its "file", "size" and "sha256", from the table of contents

    Raises
    ------
    CacheError : it cannot be had, or is not what the table of contents says
    CacheInterrupted : `should_stop` returned True
    """
    try:
        remote.fetch(record["file"], lambda path: _problem(path, record), should_stop, display)
    except FileNotFoundError as error:
        raise CacheError(
            f"{remote.address}/{record['file']} is missing, although the cache there lists it; if it is just being "
            "copied or was rebuilt, start again, else copy its folder there anew"
        ) from error
    except OSError as error:
        raise CacheError(
            f"{remote.folder}: cannot be written to ({error.strerror or error}); choose another --cache_dir"
        ) from error


def fetch_shards(
    remote: RemoteFolder,
    records: Sequence[Mapping[str, Any]],
    should_stop: Callable[[], bool],
    display: Progress | None,
) -> None:
    """Fetch those of some Arrow files that are not here yet; see `fetch_file`."""
    missing = [record for record in records if not (remote.folder / record["file"]).exists()]
    if not missing:
        return
    shown = display or Progress(False, "")
    shown.start(len(missing), "shard")
    started = time.monotonic()
    # Each process in an order of its own, so that those of one machine do not all want the same file next.
    order = np.random.default_rng().permutation(len(missing)).tolist()
    stopping = False

    def stop() -> bool:
        return stopping or should_stop()

    with ThreadPoolExecutor(AT_ONCE, "fetching") as pool:
        waiting = {pool.submit(fetch_file, remote, missing[number], stop, shown) for number in order}
        try:
            while waiting:
                done, waiting = wait(waiting, POLL_SECONDS, FIRST_COMPLETED)
                for future in done:
                    future.result()
                    shown.advance()
                if should_stop():
                    raise CacheInterrupted(f"stopped while {remote.address} was fetched")
        finally:
            stopping = True
            pool.shutdown(cancel_futures=True)
            shown.close()
    size = sum(record["size"] for record in missing)
    shown.say(
        f"{len(missing):,} of {counted(len(records), 'shard')} read here, {size / 1e6:,.1f} MB, fetched in "
        f"{time.monotonic() - started:.1f} s"
    )


def _problem(path: Path, record: Mapping[str, Any]) -> str | None:
    found = path.stat().st_size
    if found != record["size"]:
        return f"it has {found:,} bytes instead of the {record['size']:,} that its table of contents tells"
    if file_digest(path) != record["sha256"]:
        return "its content does not match the checksum in its table of contents"
    try:
        open_shard(path).validate(full=True)  # offsets that lead elsewhere would be read without a question
    except pa.ArrowInvalid as error:
        return f"it is no Arrow file of a cache ({error})"
    return None
