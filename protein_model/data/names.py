"""Finding structures of a cache by the names that split and cluster files use for them.

Such files write chain A of entry 12AS as `12as.A`, `12AS_A`, `12asA` or `pdb12as.A`, while the structure may come from
`12as.cif`, `pdb12as.ent.gz`, `12as.A.pdb` or `12asA.pdb`. Chain A of `model.pdb` is `model.A` or `model_A`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Protocol

import numpy as np

PDB_NAME = re.compile(r"(?:pdb(?:_0000)?)?([0-9][a-z0-9]{3})(?:[._:-]?([a-z0-9]{1,4}))?", re.IGNORECASE)
NAMES_SHOWN = 5


class NamedRows(Protocol):
    """What is needed of a `StructureCache` here."""

    names: list[str]
    stems: list[str]
    chain_ids: list[list[str]]

    def __len__(self) -> int: ...


def pdb_identifier(name: str) -> tuple[str, str] | None:
    """Entry in lower case and chain (empty where none is named) of a name in one of the usual forms."""
    match = PDB_NAME.fullmatch(name)
    return None if match is None else (match[1].lower(), match[2] or "")


class NameIndex:
    """Rows by name.

    A name means, the first that applies: the row of this name; the rows of this PDB entry and chain; the rows of the
    file of this name without endings; the rows of a file's chain, written with an underscore; all rows of this PDB
    entry, where the name has no chain.
    """

    def __init__(self, cache: NamedRows):
        self._names: defaultdict[str, set[int]] = defaultdict(set)
        self._chains: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
        self._stems: defaultdict[str, set[int]] = defaultdict(set)
        self._underscored: defaultdict[str, set[int]] = defaultdict(set)
        for row, (name, stem, chain_ids) in enumerate(zip(cache.names, cache.stems, cache.chain_ids, strict=True)):
            self._names[name].add(row)
            self._stems[stem].add(row)
            identifier = pdb_identifier(stem)
            if identifier is not None:
                self._chains[identifier[0], ""].add(row)
            for chain_id in chain_ids:
                self._names[f"{stem}.{chain_id}"].add(row)
                self._underscored[f"{stem}_{chain_id}"].add(row)
                if identifier is not None:
                    self._chains[identifier[0], identifier[1] or chain_id].add(row)

    def find(self, name: str) -> set[int]:
        """Rows that a name means, none if there is no such structure."""
        if name in self._names:
            return self._names[name]
        identifier = pdb_identifier(name)
        if identifier is not None and identifier[1] and identifier in self._chains:
            return self._chains[identifier]
        if name in self._stems:
            return self._stems[name]
        if name in self._underscored:
            return self._underscored[name]
        if identifier is not None and not identifier[1] and identifier in self._chains:
            return self._chains[identifier]
        return set()

    def find_all(self, names: Iterable[str]) -> tuple[dict[str, set[int]], list[str]]:
        """Rows by name, and the names that no structure has."""
        found = {name: self.find(name) for name in names}
        return {name: rows for name, rows in found.items() if rows}, [name for name, rows in found.items() if not rows]


def first_few(names: Iterable[str]) -> str:
    """Some of the names, for a message."""
    ordered = sorted(names)
    shown = ", ".join(ordered[:NAMES_SHOWN])
    return f"{shown}, ..." if len(ordered) > NAMES_SHOWN else shown


def row_array(rows: Iterable[int]) -> np.ndarray:
    """Sorted row numbers, int64."""
    return np.array(sorted(rows), dtype=np.int64)
