"""One shard of a cache: some source items -> one Arrow file, named by the hash of all that it was made from.

`make_shard` is what a worker process runs. It takes and gives plain JSON values. Which shards there are and which of
them must be made is decided in `cache`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..structures import Structure, StructureError, read_structure, structure_name
from ..wording import counted
from .chain_set import LINES_PER_BLOCK, parse_lines, read_block
from .errors import CacheError, Unusable
from .inventory import SourceItem, file_status, hashed
from .rows import SCHEMA, NamedStructure, to_table, units_of
from .storage import file_digest

# Raise it whenever rows would come out differently: other columns, other decisions in reading structures.
FORMAT_VERSION = 3
READING_ATTEMPTS = 3  # for files that change while their shard is being read


def shard_of(item: SourceItem, shards: int) -> int:
    """The shard that an item belongs to, a stable function of its path, so that other files do not matter."""
    digest = hashlib.blake2b(f"{item.path}\0{item.block}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % shards


def content_key(items: Iterable[SourceItem], options: Mapping[str, Any]) -> str:
    """Hash of the contents of items, of the options they are read with and of the format, 16 hexadecimal digits."""
    parts = sorted((item.path, item.block, item.digest) for item in items)
    text = json.dumps([FORMAT_VERSION, sorted(options.items()), parts])
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def shard_file_name(index: int, items: Iterable[SourceItem], options: Mapping[str, Any]) -> str:
    """Name of the Arrow file of a shard."""
    return f"shard-{index:05d}-{content_key(items, options)}.arrow"


def open_shard(path: Path) -> pa.Table:
    """The rows of a shard, memory-mapped: nothing is read before it is looked at.

    Raises
    ------
    pa.ArrowException, OSError : it is damaged or not there
    """
    return pa.ipc.open_stream(pa.memory_map(str(path))).read_all()


def shard_problem(path: Path, size: int) -> str | None:
    """What is wrong with the file of a shard, None if it can be used."""
    try:
        found = path.stat().st_size
    except FileNotFoundError:
        return "it is missing"
    if found != size:
        return f"it has {found:,} bytes instead of {size:,}"
    try:
        open_shard(path)
    except (pa.ArrowException, OSError) as error:  # such as an enormous size that there is no memory for
        return f"it is damaged ({error})"
    return None


def make_shard(task: Mapping[str, Any], on_item: Callable[[int], None]) -> dict[str, Any]:
    """Read the items of a shard and write its Arrow file, unless there is one of the same content already.

    Parameters
    ----------
    task : "folder" of the cache, "index" of the shard, "options" (unit, min_length), "items" as `SourceItem.to_json`
        gives them, "locations" of their files, "crashes" ({number of an item: reason} of those not to be read again),
        "existing" (names of intact shard files)
    on_item : called with the number of an item before it is read

    Returns
    -------
    "file", "size" and "sha256" of the Arrow file, "items" now with hashes, "rows" and "residues" per item, "unusable"
    lines of the report, "reused" if no item had to be read (all but "file" and "items" are then those of the existing
    file)

    Raises
    ------
    CacheError : a file changes all the time
    """
    items = [
        SourceItem.from_json(values, location)
        for values, location in zip(task["items"], task["locations"], strict=True)
    ]
    for _ in range(READING_ATTEMPTS):
        items = [item if item.digest is not None else hashed(item) for item in items]
        name = shard_file_name(task["index"], items, task["options"])
        result: dict[str, Any] = {"file": name, "items": [item.to_json() for item in items], "reused": True}
        if name in task["existing"]:
            return result
        rows, counts, unusable = _read(items, task["options"], task["crashes"], on_item)
        changed = [item for item in items if _has_changed(item)]
        if not changed:
            path = Path(task["folder"], name)
            _write(path, rows)
            return {
                **result,
                "reused": False,
                "size": path.stat().st_size,
                "sha256": file_digest(path),
                "rows": [rows for rows, _ in counts],
                "residues": [residues for _, residues in counts],
                "unusable": [list(line) for line in unusable],
            }
        if any(item.length is not None for item in changed):
            break  # the blocks of a chain set were cut by the caller, who has to begin anew
        items = [replace(item, digest=None) if item in changed else item for item in items]
    raise CacheError(f"{changed[0].path} changes while it is being read; wait until it is complete and run again")


def _has_changed(item: SourceItem) -> bool:
    if item.status is None:
        return False
    try:
        return file_status(item.location) != item.status
    except OSError:
        return True


def _read(
    items: Sequence[SourceItem],
    options: Mapping[str, Any],
    crashes: Mapping[str, str],
    on_item: Callable[[int], None],
) -> tuple[list[NamedStructure], list[tuple[int, int]], list[Unusable]]:
    rows: list[NamedStructure] = []
    counts: list[tuple[int, int]] = []
    unusable: list[Unusable] = []
    for number, item in enumerate(items):
        on_item(number)
        before = len(rows)
        reason = item.problem or crashes.get(str(number))
        if reason is not None:
            unusable.append(Unusable(item.path, "", f"file cannot be read: {reason}"))
        elif item.length is None:
            _read_file(item, options, rows, unusable)
        else:
            _read_block(item, options, rows, unusable)
        counts.append((len(rows) - before, sum(len(row.structure) for row in rows[before:])))
    return rows, counts, unusable


def _read_file(
    item: SourceItem, options: Mapping[str, Any], rows: list[NamedStructure], unusable: list[Unusable]
) -> None:
    try:
        structure = read_structure(item.location)
    except StructureError as error:
        unusable.append(Unusable(item.path, "", error.reason))
        return
    except OSError as error:
        unusable.append(Unusable(item.path, "", f"file cannot be read: {error.strerror or error}"))
        return
    except MemoryError:
        raise  # no fault of the file
    except Exception as error:
        # One file that no one has thought of must not stop a run over thousands, and it is reported.
        unusable.append(Unusable(item.path, "", f"unexpected error in reading: {type(error).__name__}: {error}"))
        return
    stem = structure_name(item.path)
    for row in units_of(structure, stem, item.path, options["unit"]):
        _keep(row, ",".join(row.structure.chain_ids), options, rows, unusable)


def _read_block(
    item: SourceItem, options: Mapping[str, Any], rows: list[NamedStructure], unusable: list[Unusable]
) -> None:
    content = read_block(Path(item.location), item.start, item.length or 0)
    for label, entry in parse_lines(content, item.block * LINES_PER_BLOCK + 1):
        if isinstance(entry, Structure):
            _keep(NamedStructure(label, label, item.path, entry), label, options, rows, unusable)
        else:
            unusable.append(Unusable(item.path, label, entry))


def _keep(
    row: NamedStructure, unit: str, options: Mapping[str, Any], rows: list[NamedStructure], unusable: list[Unusable]
) -> None:
    complete = int(row.structure.backbone_complete.sum())
    if complete < options["min_length"]:
        reason = f"fewer than {counted(options['min_length'], 'residue')} with a complete backbone: {complete}"
        unusable.append(Unusable(row.source, unit, reason))
    else:
        rows.append(row)


def _write(path: Path, rows: Sequence[NamedStructure]) -> None:
    # The temporary name is this process's own: a worker may outlive a killed builder by the time it takes to read one
    # file, while the next builder makes the same shard.
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with open(temporary, "wb") as handle:
        # A file of `datasets` is an Arrow stream. That library takes a worker longer to load than all the rest.
        with pa.ipc.new_stream(handle, SCHEMA) as writer:
            writer.write_table(to_table(rows))
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(temporary, path)
