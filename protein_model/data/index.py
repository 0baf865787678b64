"""The index of a cache: names and lengths of all its rows in one file, so that no shard is needed to know them.

It is there for who has the cache at an address and does not want all of it: splitting the data and planning the epochs
need the index alone. Where the shards lie beside it, the same columns are taken from them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from .shards import open_shard
from .storage import file_digest

INDEX_COLUMNS = ["name", "stem", "source", "length", "chain_ids"]
INDEX_FILES = "index-*.arrow"

IndexRecord = dict[str, Any]  # file, size, sha256


def index_of(shards: Sequence[pa.Table]) -> pa.Table:
    """`INDEX_COLUMNS` of all rows, in the order in which they are stored."""
    return pa.concat_tables(shard.select(INDEX_COLUMNS) for shard in shards)


def write_index(folder: Path, shard_files: Sequence[str], earlier: IndexRecord | None) -> IndexRecord:
    """Write the index of a cache, unless there is one of the same shards.

    Parameters
    ----------
    folder : of the cache
    shard_files : names of the shards that have rows; they say all about the content
    earlier : record of the index there is
    """
    key = hashlib.blake2b("\n".join(shard_files).encode(), digest_size=8).hexdigest()
    path = folder / f"index-{key}.arrow"
    there = earlier is not None and earlier["file"] == path.name and path.is_file()
    if earlier is not None and there and file_digest(path) == earlier["sha256"]:  # it is small, and not read here
        return earlier
    table = index_of([open_shard(folder / name) for name in shard_files])
    temporary = path.with_name(f"{path.name}.tmp")
    with open(temporary, "wb") as handle:
        # It is fetched, then read once from end to end.
        with pa.ipc.new_stream(handle, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_table(table)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(temporary, path)
    return {"file": path.name, "size": path.stat().st_size, "sha256": file_digest(path)}
