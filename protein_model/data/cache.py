"""From structure files to a memory-mapped `datasets.Dataset`, and access to its rows.

`build_cache` and `open_cache` are the ways in. Finding files is left to `sources`, telling changed from unchanged ones
to `inventory`, reading them to `shards`, the layout of a row to `rows`.

A cache is a folder `<cache_dir>/<name>-<key>/` with `shard-*.arrow`, `cache.json` and `report.tsv`. Source files are
dealt to shards by the hash of their relative path, and a shard's file name has the hash of the contents of its files:
what has not changed is found by its name, and one changed file costs the reading of one shard.

A finished cache may also lie at an address (`remote`). Then a folder below `cache_dir` is its copy: the table of
contents and the index come at once, a shard when one of its rows is first wanted or `fetch` asks for it.

The shards are files of the `datasets` library, and `StructureCache.dataset` is all of them in that form. Rows that are
trained on are taken from the same memory-mapped tables without it: opening 250 shards takes 0.06 s instead of 0.8 s,
and a row is a few NumPy views.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..structures import Structure, sequence_of
from ..wording import counted
from .addresses import is_address, refuse_password
from .building import BuildStatistics, bring_up_to_date, remove_unlisted
from .errors import CacheError, CacheInterrupted, Unusable
from .fetching import fetch_file, fetch_shards
from .index import IndexRecord, index_of
from .locking import Locked
from .manifest import CacheOptions, Manifest, rebuild_advice
from .progress import Progress
from .remote import RemoteFolder
from .report import REPORT_FILE, count_by_kind
from .rows import RowReader
from .shards import FORMAT_VERSION, open_shard, shard_problem
from .sources import CACHE_FILE, is_cache_folder, list_sources

__all__ = ["CacheError", "CacheInterrupted", "CacheOptions", "StructureCache", "build_cache", "open_cache"]


class StructureCache:
    """Structures of a finished cache, in the order of their source files and of the chains in them.

    Parameters
    ----------
    folder : of the cache

    Attributes
    ----------
    fingerprint : hash of file contents, relative paths and options
    options : the cache was built with
    source : resolved `--pdb_path` that it was built from
    lengths : (rows,) int32, residues
    names : unique; where two files give the same name, both get their relative folder, or if that does not help their
        relative path, in front
    stems, sources, chain_ids : of each row: file name without endings, path relative to the data folder, author chain
        identifiers
    unusable : what is not in the cache and why, as in `report.tsv`
    statistics : what the call that built or opened this cache did
    """

    def __init__(
        self, folder: Path, manifest: Manifest, statistics: BuildStatistics, remote: RemoteFolder | None = None
    ):
        self.folder = folder
        self.fingerprint = manifest.fingerprint
        self.options = manifest.options
        self.source = manifest.source
        self.unusable: list[Unusable] = manifest.all_unusable()
        self.statistics = statistics
        self._file_count = len({item["path"] for item in manifest.items()})
        self._item_noun = "blocks of lines" if any(item["length"] for item in manifest.items()) else "files"
        self._repeated = manifest.repeated
        self._remote = remote
        filled = [shard for shard in manifest.shards if sum(shard["rows"])]
        self._starts = np.cumsum([0, *(sum(shard["rows"]) for shard in filled)])
        # Not the items, which take a kilobyte of memory each.
        self._shards: list[dict[str, Any]] = [
            {key: shard.get(key) for key in ("file", "size", "sha256")} for shard in filled
        ]
        self._readers: list[RowReader | None] = [None] * len(self._shards)
        self._order = _reading_order(manifest)
        if remote is None:
            tables = [open_shard(folder / shard["file"]) for shard in self._shards]
            self._readers = [RowReader(table) for table in tables]
            self._index = index_of(tables)
        else:
            self._index = open_shard(folder / _index_record(manifest, remote)["file"])
        self.lengths = np.asarray(self._column("length"), np.int32)
        self.stems: list[str] = self._column("stem")
        self.sources: list[str] = self._column("source")
        self.chain_ids: list[list[str]] = self._column("chain_ids")
        plain_names: list[str] = self._column("name")
        self.names = _unique_names(plain_names, self.sources)
        self.renamed = sum(name != plain for name, plain in zip(self.names, plain_names, strict=True))

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Arrays of one structure, read-only views into the memory-mapped file where possible.

        Returns
        -------
        backbone (L, 4, 3) float32, angstrom, 0 where absent · atom_mask (L, 14) bool · residue_type (L,) int8 ·
        chain_index (L,) int16 · position (L,) int32 · residue_number (L,) int32 · b_factor (L,) float32 ·
        sidechain (atoms, 3) float32, the present heavy atoms beyond O, residue by residue
        """
        reader, row = self._located(index)
        return reader.arrays(row)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return (self[index] for index in range(len(self)))

    def structure(self, index: int) -> Structure:
        """One structure with all its heavy atoms, called `names[index]`.

        Occupancy is 1 for each atom that is present, and its B-factor is the mean of its residue.
        """
        reader, row = self._located(index)
        return reader.structure(row, self.names[index])

    def sequence(self, index: int) -> str:
        """One-letter sequence, chains of a complex end to end."""
        reader, row = self._located(index)
        return sequence_of(reader.residue_type(row))

    def chain_sequences(self, index: int) -> list[str]:
        """One-letter sequences of a structure's chains."""
        reader, row = self._located(index)
        chain_index = reader.arrays(row)["chain_index"]
        sequence = sequence_of(reader.residue_type(row))
        bounds = [0, *(np.flatnonzero(np.diff(chain_index)) + 1).tolist(), len(sequence)]
        return [sequence[start:stop] for start, stop in pairwise(bounds)]

    @cached_property
    def dataset(self) -> Any:
        """The rows as a memory-mapped `datasets.Dataset`, in the same order; columns as in `rows.SCHEMA`."""
        from datasets import Dataset, concatenate_datasets

        self.fetch()
        paths = [self.folder / shard["file"] for shard in self._shards]
        stored = concatenate_datasets([Dataset.from_file(str(path)) for path in paths])
        if self.renamed:
            names = np.empty(len(self), dtype=object)
            names[self._order] = self.names
            stored = stored.remove_columns("name").add_column("name", names.tolist())
        if np.array_equal(self._order, np.arange(len(self))):
            return stored
        return stored.select(self._order)

    def summary(self) -> str:
        """A few lines for the screen: what is in the cache, what is not and why, where it is."""
        counts = self.statistics
        rate = f" ({counts.read / counts.seconds:,.0f}/s)" if counts.read and counts.seconds else ""
        lines = [
            f"{counted(len(self), 'structure')} with {int(self.lengths.sum()):,} residues from "
            f"{counted(self._file_count, 'file')}, one per {self.options.unit}; {counts.read:,} "
            f"{self._item_noun} read{rate}, {counts.kept:,} unchanged, {counts.seconds:.1f} s",
        ]
        if self.renamed:
            lines.append(f"{self.renamed:,} structures share their name with another one and are told apart by folder")
        if self._repeated:
            lines.append(f"{counted(self._repeated, 'repeated line')} of the list: each file is used once")
        if self.unusable:
            files = len({line.file for line in self.unusable if not line.unit})
            units = sum(bool(line.unit) for line in self.unusable)
            lines.append(
                f"not used: {counted(files, 'whole file')} and {counted(units, 'part')} of files, "
                f"all listed in {self.folder / REPORT_FILE}"
            )
            lines += count_by_kind(self.unusable)
        lines.append(f"cache: {self.folder}")
        return "\n".join(lines)

    @property
    def stored_places(self) -> np.ndarray:
        """(rows,) int64: the place of each structure in the order of the shards; neighbours there share a shard."""
        return self._order

    def fetch(
        self,
        rows: np.ndarray | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        display: Progress | None = None,
    ) -> None:
        """Make sure that the shards of some rows are on this machine. Nothing to do unless the cache is at an address.

        Several processes of a machine that call this at the same time share the work.

        Parameters
        ----------
        rows : all if None

        Raises
        ------
        CacheError : a shard cannot be had
        CacheInterrupted : `should_stop` returned True
        """
        if self._remote is None:
            return
        places = self._order if rows is None else self._order[rows]
        wanted = np.unique(np.searchsorted(self._starts, places, side="right") - 1).tolist()
        fetch_shards(self._remote, [self._shards[number] for number in wanted], should_stop, display)

    def fetch_beside(self, name: str, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Make sure that a small file of the cache's folder is on this machine, if there is one at its address."""
        if self._remote is not None:
            with contextlib.suppress(FileNotFoundError):
                self._remote.fetch(name, lambda path: None, should_stop, Progress(False, ""))

    def __reduce__(self) -> tuple[Any, ...]:
        # Worker processes of a data loader get the folder, not the data.
        return _reopen, (self.folder, self.fingerprint, self._remote.address if self._remote is not None else None)

    def _located(self, index: int) -> tuple[RowReader, int]:
        """The shard of a structure, opened, and its row there."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"the cache has {len(self):,} structures, there is no number {index}")
        place = int(self._order[index])
        number = int(np.searchsorted(self._starts, place, side="right")) - 1
        reader = self._readers[number]
        if reader is None:
            self.fetch(np.array([index]))
            reader = self._readers[number] = RowReader(open_shard(self.folder / self._shards[number]["file"]))
        return reader, place - int(self._starts[number])

    def _column(self, name: str) -> list[Any]:
        stored = self._index.column(name).to_pylist()
        return [stored[row] for row in self._order.tolist()]


def build_cache(
    pdb_path: str | Path,
    cache_dir: str | Path,
    options: CacheOptions | None = None,
    num_workers: int | None = None,
    should_stop: Callable[[], bool] | None = None,
    progress: bool = True,
) -> StructureCache:
    """Open the cache of `pdb_path`, after reading what is new or has changed in it.

    Several processes may call this at the same time: one builds, the others wait for it, then check that nothing has
    changed and open what it built. On several machines this needs a file system that they share and that locks files
    across machines (NFS 4, Lustre with `flock`, GPFS); on one that does not, build the cache first, by
    `python -m protein_model cache`.

    Parameters
    ----------
    pdb_path : folder, structure file, text file of paths or chain_set.jsonl (see `sources.list_sources`), or the folder
        or the address of a finished cache, which is opened as it is
    cache_dir : where caches lie, each in a folder of its own; may be the same as `pdb_path`
    options : default ones if None
    num_workers : processes that read files; None for as many as there are processors and work for, 1 for this one alone
    should_stop : polled while building and waiting
    progress : show a bar, and a summary at the end

    Raises
    ------
    CacheError : there is nothing to read, nothing that can be used, or something is wrong with the cache's folder
    CacheInterrupted : `should_stop` returned True; finished shards are kept for the next call
    """
    cache_dir = Path(cache_dir)
    stop = should_stop or (lambda: False)
    display = Progress(progress, "reading structures")
    if is_address(pdb_path):
        return _as_it_is(_open_remote(str(pdb_path), cache_dir, stop, display), pdb_path, options, display)
    pdb_path = Path(pdb_path)
    if pdb_path.is_dir() and is_cache_folder(pdb_path):
        return _as_it_is(open_cache(pdb_path), pdb_path, options, display)

    options = options or CacheOptions()
    if num_workers is not None and num_workers < 1:
        raise CacheError(f"--num_workers must be at least 1, but is {num_workers}")
    if not pdb_path.exists():
        raise CacheError(f"--pdb_path {pdb_path}: there is no such file or folder")
    source = str(pdb_path.resolve())
    folder = cache_dir / _folder_name(pdb_path, options)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with Locked(folder.with_name(f"{folder.name}.lock"), stop, display):
            started = time.monotonic()
            sources = list_sources(pdb_path)
            statistics = bring_up_to_date(folder, source, sources, options, num_workers, stop, display)
            statistics.seconds = time.monotonic() - started
            cache = _open(folder, statistics)
    except OSError as error:
        raise _unwritable(cache_dir, folder, error) from error
    display.say(cache.summary())
    return cache


def open_cache(folder: str | Path) -> StructureCache:
    """Open a finished cache without looking at its source files.

    Raises
    ------
    CacheError : it is not a finished cache, or one of its files is missing or damaged; the message says how to rebuild
        it
    """
    return _open(Path(folder), BuildStatistics())


def _open(folder: Path, statistics: BuildStatistics) -> StructureCache:
    manifest = Manifest.read(folder)
    for shard in manifest.shards:
        problem = shard_problem(folder / shard["file"], shard["size"])
        if problem is not None:
            raise CacheError(
                f"{folder / shard['file']} cannot be used: {problem}; {rebuild_advice(manifest.source, folder)}"
            )
    return StructureCache(folder, manifest, statistics)


def _as_it_is(
    cache: StructureCache, pdb_path: str | Path, options: CacheOptions | None, display: Progress
) -> StructureCache:
    """A finished cache, refused where it was built with other options than those that are asked for."""
    if options is not None and options not in (cache.options, CacheOptions()):
        raise CacheError(
            f"--pdb_path {pdb_path} is a finished cache with {cache.options}, but {options} is asked for; "
            f"give the structure files themselves, {cache.source}, as --pdb_path"
        )
    if options is not None and options != cache.options:
        display.say(f"{pdb_path} is a finished cache; its own settings are used: {cache.options}")
    return cache


def _open_remote(address: str, cache_dir: Path, stop: Callable[[], bool], display: Progress) -> StructureCache:
    """Open a finished cache at an address, with what is here of it; nothing else of it is fetched than the index."""
    refuse_password(address)
    key = hashlib.blake2b(address.rstrip("/").encode(errors="surrogatepass"), digest_size=6).hexdigest()
    folder = cache_dir / f"{_readable_name(address.rstrip('/').rpartition('/')[2])}-{key}"
    remote = RemoteFolder(address, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with Locked(folder.with_name(f"{folder.name}.lock"), stop, display):
            try:
                remote.fetch(CACHE_FILE, lambda path: None, stop, display, always=True)
            except FileNotFoundError as error:
                raise CacheError(
                    f"--pdb_path {address}: there is no finished cache (it has no {CACHE_FILE}). Build one with "
                    "python -m protein_model cache, and copy its folder there; structure files are read from file "
                    "systems only"
                ) from error
            manifest = Manifest.read(folder)
            remove_unlisted(folder, manifest)
            fetch_file(remote, _index_record(manifest, remote), stop, display)
        cache = StructureCache(folder, manifest, BuildStatistics(), remote)
    except OSError as error:
        raise _unwritable(cache_dir, folder, error) from error
    sizes = {folder / shard["file"]: shard["size"] for shard in manifest.shards}
    here = sum(path.exists() for path in sizes)
    display.say(
        f"{counted(len(cache), 'structure')} with {int(cache.lengths.sum()):,} residues in "
        f"{counted(len(sizes), 'shard')} "
        f"({sum(sizes.values()) / 1e6:,.1f} MB) at {address}, {here:,} of them in {folder}"
    )
    return cache


def _index_record(manifest: Manifest, remote: RemoteFolder) -> IndexRecord:
    if manifest.index is None or any("sha256" not in shard for shard in manifest.shards):
        raise CacheError(
            f"{remote.address} was built by an older release, without index and checksums; where its structure files "
            "are, run python -m protein_model cache again, which adds them, and copy its folder there again"
        )
    return manifest.index


def _unwritable(cache_dir: Path, folder: Path, error: OSError) -> CacheError:
    return CacheError(
        f"--cache_dir {cache_dir}: {error.strerror or error} ({error.filename or folder}); choose a folder that can be "
        "written to and has room"
    )


def _reopen(folder: Path, fingerprint: str, address: str | None = None) -> StructureCache:
    if address is None:
        cache = open_cache(folder)
    else:
        cache = StructureCache(folder, Manifest.read(folder), BuildStatistics(), RemoteFolder(address, folder))
    if cache.fingerprint != fingerprint:
        raise CacheError(f"the cache {folder} was rebuilt from changed files while it was in use; start the run again")
    return cache


def _folder_name(pdb_path: Path, options: CacheOptions) -> str:
    resolved = pdb_path.resolve()
    text = json.dumps([str(resolved), sorted(options.to_json().items()), FORMAT_VERSION])
    key = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=6).hexdigest()
    return f"{_readable_name(resolved.stem if resolved.is_file() else resolved.name)}-{key}"


def _readable_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip("._")[:40] or "structures"


def _reading_order(manifest: Manifest) -> np.ndarray:
    """(rows,) stored row of each structure. Rows are stored shard by shard and presented by (source, place in it)."""
    runs: list[tuple[str, int, int, int]] = []
    stored = 0
    for shard in manifest.shards:
        for item, rows in zip(shard["items"], shard["rows"], strict=True):
            runs.append((item["path"], item["block"], stored, rows))
            stored += rows
    runs.sort()
    return np.concatenate([np.arange(start, start + rows) for _, _, start, rows in runs])


def _unique_names(plain: list[str], sources: list[str]) -> list[str]:
    names = plain
    for prefixes in ([source.rpartition("/")[0] for source in sources], sources):
        counts = Counter(names)
        if len(counts) == len(names):
            return names
        names = [
            f"{prefix}/{own}" if prefix and counts[name] > 1 else name
            for name, own, prefix in zip(names, plain, prefixes, strict=True)
        ]
    # The same name twice in one file: two lines of a chain set.
    taken, numbers = set(names), Counter[str]()
    unique, used = [], set[str]()
    for name in names:
        candidate = name
        while candidate in used or (candidate != name and candidate in taken):
            numbers[name] += 1
            candidate = f"{name}#{numbers[name] + 1}"
        used.add(candidate)
        unique.append(candidate)
    return unique
