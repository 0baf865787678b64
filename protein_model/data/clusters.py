"""Groups of a cache's structures that must not come apart: as a file names them, or by similarity of their sequences.

How similar sequences are found is left to `clustering`, what the groups are used for to `splits`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from ..wording import counted
from .cache import StructureCache
from .clustering import cluster_sequences
from .errors import CacheError, CacheInterrupted, SplitError
from .locking import Locked
from .names import NameIndex, first_few
from .progress import Progress
from .storage import write_atomically

STOPPED = "stopped while sequences were grouped by similarity"
CLUSTERING_VERSION = 2  # raise it whenever `clustering` groups sequences differently


def _grouped(labels: Iterable[int]) -> list[list[int]]:
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for row, label in enumerate(labels):
        groups[label].append(row)
    return list(groups.values())


class _Union:
    """Disjoint sets of rows."""

    def __init__(self, count: int):
        self._parent = list(range(count))

    def find(self, row: int) -> int:
        while self._parent[row] != row:
            self._parent[row] = self._parent[self._parent[row]]
            row = self._parent[row]
        return row

    def join(self, rows: Iterable[int]) -> None:
        roots = [self.find(row) for row in rows]
        for root in roots:
            self._parent[root] = min(roots)

    def groups(self) -> list[list[int]]:
        return _grouped(self.find(row) for row in range(len(self._parent)))


def clusters_from_file(cache: StructureCache, path: Path) -> tuple[list[list[int]], list[str]]:
    """Clusters of rows as a file names them, and notes on names and structures that did not match.

    Parameters
    ----------
    path : as `mmseqs createtsv` and `easy-cluster` write it: representative and member, separated by a tab

    Raises
    ------
    SplitError : the file cannot be read, is malformed, or names no structure of the cache
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SplitError(f"--cluster_file {path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SplitError(f"--cluster_file {path}: not text ({error})") from error
    members: defaultdict[str, list[str]] = defaultdict(list)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        columns = line.split("\t")
        if len(columns) != 2:
            raise SplitError(
                f"--cluster_file {path}, line {number}: {len(columns)} columns separated by tabs instead of 2, "
                "representative and member"
            )
        members[columns[0].strip()].append(columns[1].strip())
    index = NameIndex(cache)
    union = _Union(len(cache))
    absent: list[str] = []
    listed: set[int] = set()
    for names in members.values():
        found, missing = index.find_all(names)
        rows = set().union(*found.values())
        union.join(rows)
        listed |= rows
        absent += missing
    notes = []
    if absent:
        notes.append(f"{counted(len(absent), 'name')} of {path.name} without a structure here: {first_few(absent)}")
    unlisted = [cache.names[row] for row in range(len(cache)) if row not in listed]
    if len(unlisted) == len(cache):
        raise SplitError(
            f"--cluster_file {path}: it names none of the structures here, which are called, for example, "
            f"{first_few(cache.names)}; the file has {first_few(absent)}"
        )
    if unlisted:
        notes.append(
            f"{counted(len(unlisted), 'structure')} not in {path.name}, each a cluster of its own: "
            f"{first_few(unlisted)}"
        )
    return union.groups(), notes


def clusters_by_similarity(
    cache: StructureCache, display: Progress, should_stop: Callable[[], bool]
) -> list[list[int]]:
    """Clusters of rows with similar sequences; complexes that have similar chains are in one cluster.

    They are computed once for each state of the cache and kept in a file in its folder, in the format that
    `clusters_from_file` reads.

    Parameters
    ----------
    display : shows how far it is
    should_stop : polled meanwhile

    Raises
    ------
    CacheInterrupted : `should_stop` returned True
    """
    path = cache.folder / f"clusters-{CLUSTERING_VERSION}-{cache.fingerprint[:12]}.tsv"
    try:
        # Several processes of one run come here at the same time: one does the work.
        with Locked(cache.folder / "clusters.lock", should_stop, display):
            cache.fetch_beside(path.name, should_stop)
            clusters = _read_clusters(cache, path)
            if clusters is None:
                cache.fetch(None, should_stop, display)  # the sequences are in the shards
                clusters = _compute_clusters(cache, display, should_stop)
                for old in cache.folder.glob("clusters-*.tsv"):
                    old.unlink()
                lines = [f"{cache.names[rows[0]]}\t{cache.names[row]}\n" for rows in clusters for row in rows]
                write_atomically(path, "".join(lines))
    except (OSError, CacheError) as error:
        display.say(f"{path} cannot be written ({error}), so the sequences are grouped anew in each run")
        clusters = _compute_clusters(cache, display, should_stop, num_workers=1)  # each process of the run does so
    return clusters


def _read_clusters(cache: StructureCache, path: Path) -> list[list[int]] | None:
    if not path.exists():
        return None
    rows = {name: row for row, name in enumerate(cache.names)}
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for line in path.read_bytes().decode("utf-8", "replace").splitlines():  # a damaged one is made anew
        representative, _, member = line.partition("\t")
        if member in rows:
            groups[representative].append(rows.pop(member))
    return None if rows else list(groups.values())


def _compute_clusters(
    cache: StructureCache, display: Progress, should_stop: Callable[[], bool], num_workers: int | None = None
) -> list[list[int]]:
    def on_sequence() -> None:
        if should_stop():
            raise CacheInterrupted(STOPPED)
        display.advance()

    chains = [(row, sequence) for row in range(len(cache)) for sequence in cache.chain_sequences(row)]
    sequences = [sequence for _, sequence in chains]
    display.start(len(set(sequences)), "sequence")
    try:
        labels = cluster_sequences(sequences, on_sequence, num_workers)
    except SplitError:
        if should_stop():  # a signal to all processes of a job ends those that compare as well
            raise CacheInterrupted(STOPPED) from None
        raise
    finally:
        display.close()
    union = _Union(len(cache))
    by_label: defaultdict[int, set[int]] = defaultdict(set)
    for (row, _), label in zip(chains, labels.tolist(), strict=True):
        by_label[label].add(row)
    for rows in by_label.values():
        union.join(rows)
    return union.groups()
