"""Bringing the folder of a cache up to date with its source files. The caller holds the lock.

Order of events, so that an interruption at any instant leaves either the old cache or the new one, and finished shards
are never lost: shard files are written under temporary names, flushed and renamed; each is noted in a journal;
`cache.json` is replaced last; only then are the old shards removed.
"""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..wording import counted
from .chain_set import LINES_PER_BLOCK
from .errors import CacheError
from .index import INDEX_FILES, write_index
from .inventory import SourceItem, take_inventory
from .manifest import CacheOptions, Journal, Manifest, ShardRecord
from .progress import Progress
from .report import REPORT_FILE, count_by_kind, write_report
from .shard_workers import Task, make_shards
from .shards import shard_file_name, shard_of, shard_problem
from .sources import Sources, is_cache_folder
from .storage import file_digest, sync_folder
from .subprocesses import available_processors

FILES_PER_SHARD = 64
MIN_SHARDS = 4
MAX_SHARDS = 256  # every shard is an open memory-mapped file; many systems allow a process 1,024
DEAL_ANEW_FACTOR = 4  # when so many times more shards fit the data, at least three quarters of it are new anyway
FILES_PER_WORKER = 64  # starting a worker takes about as long as reading so many files


@dataclass
class BuildStatistics:
    """What one call did.

    Attributes
    ----------
    read, kept : source files (blocks of lines of a chain set) that were read, and that were not as nothing had changed
    seconds : from the search for files to the finished cache
    """

    read: int = 0
    kept: int = 0
    seconds: float = 0.0


@dataclass
class _Plan:
    """What to do about each shard."""

    shards: list[ShardRecord] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)


def bring_up_to_date(
    folder: Path,
    source: str,
    sources: Sources,
    options: CacheOptions,
    num_workers: int | None,
    should_stop: Callable[[], bool],
    display: Progress,
) -> BuildStatistics:
    """Read what is new or changed among `sources` and write the rest of the cache around it.

    Parameters
    ----------
    folder : of the cache, exists
    source : resolved `--pdb_path`
    num_workers : processes that read; None for as many as there are processors and work for

    Raises
    ------
    CacheError : no structure can be used, or a file changes all the time
    CacheInterrupted : `should_stop` returned True
    """
    for leftover in (*folder.glob("shard-*.tmp"), *folder.glob(f"{INDEX_FILES}.tmp")):
        leftover.unlink(missing_ok=True)
    manifest = _read_manifest(folder, display)
    journal = Journal(folder)
    journal_shards, journal_records = journal.read()
    recorded = [*(manifest.shards if manifest else ()), *journal_records]
    items = take_inventory(sources, (item for record in recorded for item in record["items"]))
    # The journal was begun after the manifest was written.
    shard_count = _shard_count(items, journal_shards or (manifest.shard_count if manifest else None))

    known = _intact(folder, recorded, display)
    plan = _plan(folder, items, shard_count, options, known)
    statistics = BuildStatistics(kept=len(items))
    if plan.tasks:
        journal.begin(shard_count, list(known.values()))
        display.start(
            sum(len(task["items"]) for task in plan.tasks), "block" if sources.kind == "chain_set" else "file"
        )
        finished = _run(plan, known, journal, num_workers, should_stop, display)
        statistics.read = sum(len(record["items"]) for record in finished)
        statistics.kept -= statistics.read
        sync_folder(folder)

    plan.shards.sort(key=lambda record: record["index"])
    filled = [record["file"] for record in plan.shards if sum(record["rows"])]
    index = write_index(folder, filled, manifest.index if manifest else None) if filled else None
    new = Manifest(source, options, shard_count, tuple(plan.shards), tuple(sources.unusable), sources.repeated, index)
    if not (folder / REPORT_FILE).exists() or manifest is None or manifest.all_unusable() != new.all_unusable():
        write_report(folder, new.all_unusable())
    if not any(sum(record["rows"]) for record in new.shards):
        raise CacheError(_nothing_usable(folder, source, new))
    if new != manifest:
        new.write(folder)
    journal.remove()
    remove_unlisted(folder, new)
    return statistics


def remove_unlisted(folder: Path, manifest: Manifest) -> None:
    """Remove shards and indexes of earlier states of a cache."""
    used = {record["file"] for record in manifest.shards} | {manifest.index["file"] if manifest.index else ""}
    for path in (*folder.glob("shard-*.arrow"), *folder.glob(INDEX_FILES)):
        if path.name not in used:
            path.unlink()


def _read_manifest(folder: Path, display: Progress) -> Manifest | None:
    if not is_cache_folder(folder):
        return None
    try:
        return Manifest.read(folder)
    except CacheError as error:
        display.say(f"{error}. It is built anew now.")
        return None


def _shard_count(items: list[SourceItem], now: int | None) -> int:
    """Number of shards: what it is now, so that only changed files are read, unless the data have outgrown it."""
    weight = sum(1 if item.length is None else FILES_PER_SHARD for item in items)
    fitting = min(max(math.ceil(weight / FILES_PER_SHARD), MIN_SHARDS), MAX_SHARDS)
    return fitting if now is None or fitting > DEAL_ANEW_FACTOR * now else now


def _intact(folder: Path, records: Iterable[ShardRecord], display: Progress) -> dict[str, ShardRecord]:
    """Records by file name, of those files that are as they were written."""
    known: dict[str, ShardRecord] = {}
    for record in records:
        problem = shard_problem(folder / record["file"], record["size"])
        if problem is None:
            if "sha256" not in record:  # of an older release
                record = {**record, "sha256": file_digest(folder / record["file"])}
            known[record["file"]] = record
        else:
            display.say(f"{folder / record['file']} cannot be used: {problem}. It is made again.")
    return known


def _plan(
    folder: Path, items: list[SourceItem], shard_count: int, options: CacheOptions, known: dict[str, ShardRecord]
) -> _Plan:
    by_shard: dict[int, list[SourceItem]] = defaultdict(list)
    for item in items:
        by_shard[shard_of(item, shard_count)].append(item)
    plan = _Plan()
    for index, members in sorted(by_shard.items()):
        members.sort(key=lambda item: item.key)
        if all(item.digest is not None for item in members):
            record = known.get(shard_file_name(index, members, options.to_json()))
            if record is not None:
                plan.shards.append({**record, "items": [item.to_json() for item in members]})
                continue
        plan.tasks.append(
            {
                "folder": str(folder),
                "index": index,
                "options": options.to_json(),
                "items": [item.to_json() for item in members],
                "locations": [item.location for item in members],
                "crashes": {},
                "existing": [name for name in known if name.startswith(f"shard-{index:05d}-")],
            }
        )
    return plan


def _run(
    plan: _Plan,
    known: dict[str, ShardRecord],
    journal: Journal,
    num_workers: int | None,
    should_stop: Callable[[], bool],
    display: Progress,
) -> list[ShardRecord]:
    """Make the shards of the plan's tasks, add their records to the plan and give back those that were read."""
    finished: list[ShardRecord] = []
    results = make_shards(plan.tasks, _workers(num_workers, plan.tasks), display.advance, should_stop)
    try:
        with contextlib.closing(results):  # ends the workers, whatever happens here
            for task, result in results:
                if result["reused"]:
                    record = {**known[result["file"]], "items": result["items"]}
                    display.advance(len(result["items"]))
                else:
                    made = {key: value for key, value in result.items() if key != "reused"}
                    record = {"index": task["index"], **made}
                    finished.append(record)
                journal.add(record)
                plan.shards.append(record)
    finally:
        display.close()
    return finished


def _workers(wanted: int | None, tasks: list[Task]) -> int:
    if wanted is not None:
        return max(1, min(wanted, len(tasks)))
    files = sum(1 if item["length"] is None else LINES_PER_BLOCK for task in tasks for item in task["items"])
    return max(1, min(available_processors(), len(tasks), files // FILES_PER_WORKER))


def _nothing_usable(folder: Path, source: str, manifest: Manifest) -> str:
    unusable = manifest.all_unusable()
    reasons = "\n".join(count_by_kind(unusable))
    return (
        f"--pdb_path {source}: no structure in it can be used ({manifest.options.unit} as unit, at least "
        f"{counted(manifest.options.min_length, 'residue')}). Reasons, listed file by file in "
        f"{folder / REPORT_FILE}:\n{reasons}"
    )
