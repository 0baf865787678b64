"""The table of contents of a cache: `cache.json` of a finished one, `building.jsonl` of one that is being built."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, get_args

from .errors import CacheError, Unusable
from .index import IndexRecord
from .shards import FORMAT_VERSION
from .sources import CACHE_FILE, CACHE_MARKER, is_cache_folder
from .storage import write_atomically

JOURNAL_FILE = "building.jsonl"

Unit = Literal["chain", "complex"]
_RECORD_ENTRIES = {"index", "file", "size", "items", "rows", "residues", "unusable"}
ShardRecord = dict[str, Any]  # index, file, size, sha256, items, rows, residues, unusable; see `shards.make_shard`


@dataclass(frozen=True)
class CacheOptions:
    """How structures become rows.

    Attributes
    ----------
    unit : "chain", one row per protein chain, or "complex", one row per file with all its protein chains
    min_length : residues with complete backbone; shorter units are reported, not used
    """

    unit: Unit = "chain"
    min_length: int = 10

    def __post_init__(self) -> None:
        if self.unit not in get_args(Unit):
            raise CacheError(f"--unit must be one of {', '.join(get_args(Unit))}, but is {self.unit!r}")
        if self.min_length < 1:
            raise CacheError(f"--min_length must be at least 1, but is {self.min_length}")

    def to_json(self) -> dict[str, Any]:
        """Plain values, by name."""
        return asdict(self)


@dataclass(frozen=True)
class Manifest:
    """What a finished cache holds.

    Attributes
    ----------
    source : resolved `--pdb_path`
    options : it was built with
    shard_count : number of shards that source files are dealt to, fixed when the cache is first built
    shards : those that hold at least one file, by index
    unusable : what was not even read; the shards list what they could not use of their files
    repeated : lines of a list of paths that name a file once more
    index : file, size and SHA-256 of the index, None in a cache of an older release
    """

    source: str
    options: CacheOptions
    shard_count: int
    shards: tuple[ShardRecord, ...]
    unusable: tuple[Unusable, ...]
    repeated: int = 0
    index: IndexRecord | None = None

    @property
    def fingerprint(self) -> str:
        """Hash of file contents, relative paths and options; the same wherever and in whatever shards they lie."""
        items = sorted((item["path"], item["block"], item["digest"]) for item in self.items())
        text = json.dumps([FORMAT_VERSION, sorted(self.options.to_json().items()), items])
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def items(self) -> Iterator[Mapping[str, Any]]:
        """All source items."""
        for shard in self.shards:
            yield from shard["items"]

    def all_unusable(self) -> list[Unusable]:
        """All lines of the report, by file."""
        lines = [*self.unusable, *(Unusable(*line) for shard in self.shards for line in shard["unusable"])]
        return sorted(lines, key=lambda line: line.file)

    def write(self, folder: Path) -> None:
        """Write `cache.json`, which makes the cache a finished one."""
        content = {
            "version": FORMAT_VERSION,
            "fingerprint": self.fingerprint,
            "source": self.source,
            "options": self.options.to_json(),
            "shard_count": self.shard_count,
            "repeated": self.repeated,
            "unusable": self.unusable,
            "index": self.index,
            "shards": self.shards,
        }
        write_atomically(folder / CACHE_FILE, f"{CACHE_MARKER}, {json.dumps(content)[1:]}\n")

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read `cache.json`.

        Raises
        ------
        CacheError : it is not there, damaged, or of another version of the format
        """
        if not is_cache_folder(folder):
            raise CacheError(f"{folder} is not a finished cache: it has no {CACHE_FILE} of one")
        try:
            content = json.loads((folder / CACHE_FILE).read_text(encoding="utf-8"))
            version = content["version"]
            if version != FORMAT_VERSION:
                raise CacheError(
                    f"the cache {folder} has format version {version}, this release reads {FORMAT_VERSION}; "
                    f"{rebuild_advice(content['source'], folder)}"
                )
            if not isinstance(content["shard_count"], int) or not all(map(_is_record, content["shards"])):
                raise TypeError("a shard is not described as it should be")
            return cls(
                source=content["source"],
                options=CacheOptions(**content["options"]),
                shard_count=content["shard_count"],
                shards=tuple(content["shards"]),
                unusable=tuple(Unusable(*line) for line in content["unusable"]),
                repeated=content["repeated"],
                index=content.get("index"),
            )
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise CacheError(
                f"{folder / CACHE_FILE} is damaged ({type(error).__name__}: {error}); delete it and build "
                "the cache again"
            ) from error


def _is_record(values: Any) -> bool:
    """Has what a `ShardRecord` needs to have; one of an older release has no checksum."""
    return isinstance(values, dict) and values.keys() >= _RECORD_ENTRIES


def rebuild_advice(source: str, folder: Path) -> str:
    """What to type to make a cache anew."""
    return (
        f"rebuild it with: python -m protein_model cache --pdb_path {source} --cache_dir {folder.resolve().parent} "
        f"(and the options that it was built with)"
    )


class Journal:
    """Shards finished so far, a line each, so that an interrupted build is gone on with.

    The first line has the number of shards, which stays as it is even if files are added in between.
    """

    def __init__(self, folder: Path):
        self._path = folder / JOURNAL_FILE

    def read(self) -> tuple[int | None, list[ShardRecord]]:
        """Number of shards, if known, and the records of finished ones. A line that was cut off is ignored."""
        entries: list[dict[str, Any]] = []
        try:
            with open(self._path, encoding="utf-8") as handle:
                for line in handle:
                    entries.append(json.loads(line))
        except FileNotFoundError:
            return None, []
        except (json.JSONDecodeError, UnicodeDecodeError):
            pass  # written half when the build was interrupted; what came before it is good
        if not entries or not isinstance(entries[0], dict) or entries[0].get("version") != FORMAT_VERSION:
            return None, []
        shard_count = entries[0].get("shard_count")
        if not isinstance(shard_count, int):
            return None, []
        return shard_count, list(takewhile(_is_record, entries[1:]))

    def begin(self, shard_count: int, finished: list[ShardRecord]) -> None:
        """Start it anew with what is known to be good."""
        lines = [{"version": FORMAT_VERSION, "shard_count": shard_count}, *finished]
        write_atomically(self._path, "".join(json.dumps(line) + "\n" for line in lines))

    def add(self, record: ShardRecord) -> None:
        """Note a finished shard, whose file is on disk."""
        with open(self._path, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(record) + "\n")
            handle.flush()
            os.fsync(handle.fileno())

    def remove(self) -> None:
        """The cache is finished."""
        self._path.unlink(missing_ok=True)
