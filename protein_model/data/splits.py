"""Which structures are trained on, validated on and kept for the test.

Either as a file or folders say (`predefined_split`), or by clusters of similar sequences (`cluster_split`), which
`clusters` finds. Names in such files are matched to structures by `names`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..randomness import derived_seed
from ..structures.residues import UNKNOWN_RESIDUE
from ..structures.structure import BACKBONE_ATOM_COUNT
from ..wording import counted
from .addresses import is_address
from .cache import StructureCache
from .clusters import clusters_by_similarity, clusters_from_file
from .errors import SplitError
from .names import NameIndex, first_few, row_array
from .progress import Progress
from .sources import data_folder

__all__ = ["Split", "SplitError", "cluster_split", "predefined_split"]

SPLIT_FILE = "chain_set_splits.json"
PARTS = ("train", "validation", "test")
FOLDER_NAMES = {name: name for name in PARTS} | {"valid": "validation", "val": "validation"}


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of a cache, int64, sorted, each in at most one part.

    Attributes
    ----------
    train, validation, test : rows; test may be empty
    unassigned : rows in none of them
    description : how the split was made and what did not match, for the screen
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    unassigned: np.ndarray
    description: str


def predefined_split(cache: StructureCache, pdb_path: str | Path, split_file: str | Path | None = None) -> Split:
    """The split that comes with the data.

    It is looked for in this order: `split_file`; `chain_set_splits.json` in the data folder; subfolders `train`,
    `validation` (or `valid`, `val`) and `test` of the data folder; `chain_set_splits.json` beside the data folder.

    Parameters
    ----------
    pdb_path : that the cache was built from, or the folder or address of a finished cache; then the place where its
        sources were is searched as well
    split_file : JSON with lists of names under "train", "validation" and, if any, "test"

    Raises
    ------
    SplitError : there is none, it is malformed, a name or a structure is in two parts, or nothing is left to train or
        to validate on
    """
    if split_file is not None:
        return _from_file(cache, Path(split_file))
    if is_address(pdb_path):
        cache.fetch_beside(SPLIT_FILE)
        pdb_path = cache.folder
    folders = list(dict.fromkeys(data_folder(path) for path in (Path(pdb_path), Path(cache.source))))
    for folder in folders:
        if (folder / SPLIT_FILE).is_file():
            return _from_file(cache, folder / SPLIT_FILE)
    parts = [FOLDER_NAMES.get(source.partition("/")[0]) if "/" in source else None for source in cache.sources]
    if "train" in parts or "validation" in parts:
        return _from_subfolders(cache, parts, folders[-1])
    for folder in folders:
        beside = folder.resolve().parent / SPLIT_FILE
        if beside.is_file():
            return _from_file(cache, beside)
    raise SplitError(
        f"--use_predefined_split: {' and '.join(map(str, folders))} and its parent have no {SPLIT_FILE}, and there are "
        "no subfolders train/ and validation/; name the file with --split_file, or leave --use_predefined_split out to "
        "split by sequence similarity"
    )


def _from_file(cache: StructureCache, path: Path) -> Split:
    listed = _read_split_file(path)
    index = NameIndex(cache)
    rows: dict[str, set[int]] = {}
    absent: list[str] = []
    part_of: dict[str, str] = {}
    for part, names in listed.items():
        for name in names:
            if part_of.setdefault(name, part) != part:
                raise SplitError(f"{path}: {name} is in {part_of[name]} and in {part}; it can be in one of them only")
        found, missing = index.find_all(names)
        rows[part] = set().union(*found.values())
        absent += missing
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        both = rows[first] & rows[second]
        if both:
            raise SplitError(
                f"{path}: {counted(len(both), 'structure is', 'structures are')} meant by a name in {first} and by "
                f"another one in {second}: "
                f"{first_few(cache.names[row] for row in both)}; name each in one of them, or, if they are "
                "complexes whose chains are split, use --unit chain"
            )
    total = sum(map(len, listed.values()))
    notes = [f"{counted(total, 'name')} in {path}"]
    if absent:
        notes.append(f"{counted(len(absent), 'of them has', 'of them have')} no structure here: {first_few(absent)}")
    return _finish(cache, rows, f"predefined split of {path.name}", notes, str(path))


def _read_split_file(path: Path) -> dict[str, list[str]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SplitError(f"--split_file {path}: cannot be read: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SplitError(f"--split_file {path}: not JSON ({error})") from error
    expected = 'an object with lists of names under "train", "validation" and, if any, "test"'
    if not isinstance(content, dict):
        raise SplitError(f"--split_file {path}: must be {expected}")
    listed: dict[str, list[str]] = {}
    for part in PARTS:
        names = content.get(part, [] if part == "test" else None)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise SplitError(f"--split_file {path}: {part!r} is missing or not a list of names; it must be {expected}")
        listed[part] = list(dict.fromkeys(names))
    return listed


def _from_subfolders(cache: StructureCache, parts: list[str | None], folder: Path) -> Split:
    rows: dict[str, set[int]] = {part: set() for part in PARTS}
    for row, part in enumerate(parts):
        if part is not None:
            rows[part].add(row)
    return _finish(cache, rows, f"predefined split by subfolders of {folder}", [], str(folder))


def _finish(
    cache: StructureCache, rows: Mapping[str, Iterable[int]], origin: str, notes: list[str], where: str
) -> Split:
    arrays = {part: row_array(rows[part]) for part in PARTS}
    for part, verb in (("train", "train"), ("validation", "validate")):
        if not len(arrays[part]):
            notes = [*notes, f"the structures are called, for example, {first_few(cache.names)}"]
            raise SplitError(f"{where}: no structure to {verb} on; {'; '.join(notes)}")
    assigned = np.concatenate([arrays[part] for part in PARTS])
    unassigned = np.setdiff1d(np.arange(len(cache)), assigned)
    if len(unassigned):
        notes = [
            *notes,
            f"{counted(len(unassigned), 'structure is', 'structures are')} in no part of it and not used: "
            f"{first_few(cache.names[row] for row in unassigned)}",
        ]
    counts = ", ".join(f"{len(arrays[part]):,} {part}" for part in PARTS if len(arrays[part]))
    description = "\n".join([f"{origin}: {counts}", *notes])
    return Split(arrays["train"], arrays["validation"], arrays["test"], unassigned, description)


def cluster_split(
    cache: StructureCache,
    seed: int,
    cluster_file: str | Path | None = None,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.0,
    progress: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
) -> Split:
    """A split in which similar sequences never come apart.

    Whole clusters are drawn in an order that depends on the seed and on the names in each cluster alone, so that it
    does not depend on the order of files, and a few structures more or less move few others. A cluster that would make
    a part larger than its share stays in the training set. Complexes that have similar chains belong to one cluster.

    Parameters
    ----------
    seed : of the run
    cluster_file : as `mmseqs createtsv` and `easy-cluster` write it, representative and member, separated by a tab;
        without it, sequences are grouped by `clustering.cluster_sequences`, once for each state of the cache
    validation_fraction, test_fraction : share of the structures; at least one cluster each, none for a share of 0 of
        the test set
    progress : show how far the grouping of sequences is
    should_stop : polled meanwhile

    Raises
    ------
    SplitError : the shares leave nothing to train on, the cluster file is malformed, or there are too few clusters
    CacheInterrupted : `should_stop` returned True
    """
    if not 0 < validation_fraction < 1:
        raise SplitError(f"--validation_fraction must be between 0 and 1, but is {validation_fraction}")
    if not 0 <= test_fraction < 1 - validation_fraction:
        raise SplitError(
            f"the test fraction must be at least 0 and leave something to train on, but is {test_fraction} beside "
            f"--validation_fraction {validation_fraction}"
        )
    if cluster_file is not None:
        clusters, notes = clusters_from_file(cache, Path(cluster_file))
        origin = f"split by the clusters of {cluster_file}"
    else:
        display = Progress(progress, "grouping sequences by similarity")
        clusters, notes = clusters_by_similarity(cache, display, should_stop), []
        origin = "split by sequence similarity"
    needed = 2 + (test_fraction > 0)
    if len(clusters) < needed:
        raise SplitError(
            f"{counted(len(cache), 'structure forms', 'structures form')} {counted(len(clusters), 'cluster')} of "
            f"similar sequences, and a split needs {needed}: nothing would be left to validate on that was not trained "
            "on. Add structures of other proteins, or say yourself what to validate on: --use_predefined_split with "
            "train/ and validation/ subfolders or with --split_file"
        )
    rows: dict[str, list[int]] = {"test": []}
    remaining = _draw_order(cache, clusters, seed)
    # Each later part needs a cluster too.
    rows["validation"], remaining = _draw(remaining, validation_fraction * len(cache), leave=needed - 1)
    if test_fraction:
        rows["test"], remaining = _draw(remaining, test_fraction * len(cache), leave=1)
    rows["train"] = [row for cluster in remaining for row in cluster]
    largest = max(map(len, clusters))
    notes = [f"{counted(len(clusters), 'cluster')}, the largest of {counted(largest, 'structure')}", *notes]
    return _finish(cache, rows, origin, notes, "split by cluster")


def _draw_order(cache: StructureCache, clusters: list[list[int]], seed: int) -> list[list[int]]:
    def rank(cluster: list[int]) -> tuple[int, str]:
        representative = min(cache.names[row] for row in cluster)
        return derived_seed(seed, "split", representative), representative

    return sorted(clusters, key=rank)


def _draw(clusters: list[list[int]], target: float, leave: int) -> tuple[list[int], list[list[int]]]:
    """Rows of the clusters that are drawn, about `target` of them, and the clusters that remain, at least `leave`."""
    wanted = max(1, round(target))
    drawn: list[int] = []
    remaining: list[list[int]] = []
    for number, cluster in enumerate(clusters):
        others = len(remaining) + len(clusters) - number - 1
        if len(drawn) + len(cluster) <= wanted and others >= leave:
            drawn += cluster
        else:
            remaining.append(cluster)
    if not drawn:  # every cluster is larger than what is wanted
        smallest = min(remaining, key=len)
        remaining.remove(smallest)
        drawn = list(smallest)
    return drawn, remaining


def refuse_unscorable(cache: StructureCache, split: Split) -> None:
    """See that there is a residue to train on and one to validate on; losses would be zero without.

    Raises
    ------
    SplitError : in one of the two no residue has a complete backbone and a known type
    """
    for purpose, rows in (("train", split.train), ("validate", split.validation)):
        if not any(_is_scored(cache[row]).any() for row in rows.tolist()):  # nearly always, the first one is looked at
            names = first_few(cache.names[row] for row in rows.tolist())
            raise SplitError(
                f"there is nothing to {purpose} on: of {counted(len(rows), 'structure')} ({names}) no residue has both "
                "a complete backbone and a known type; add structures, or choose others by --use_predefined_split or "
                "another --seed"
            )


def _is_scored(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    complete = arrays["atom_mask"][:, :BACKBONE_ATOM_COUNT].all(axis=1)
    return np.asarray(complete & (arrays["residue_type"] != UNKNOWN_RESIDUE))
