"""Residues by the names that people use: author chain, author number, insertion code (`A12`, `A12B`, `A12-20`, `B`).

What a selection is used for is left to others; here it becomes rows of a `Structure`, or an error that names the
nearest residues and chains that there are.
"""

from __future__ import annotations

import difflib
import re

import numpy as np

from ..errors import UserError
from .structure import Structure

_NUMBER = r"(-?\d+)([A-Za-z]?)"
_RESIDUES = re.compile(rf"{_NUMBER}(?:-(.+))?")
_LAST = re.compile(_NUMBER)
_NEAREST = 3  # names in a message
_MOST_CHAINS = 12  # chains in a message


class SelectionError(UserError, ValueError):
    """A selection names a chain or a residue that the structure does not have."""


def residue_name(structure: Structure, row: int) -> str:
    """How a residue is named in selections: `A12`, or `A1:12` where the chain identifier is not a single letter."""
    chain = structure.chain_ids[structure.chain_index[row]]
    colon = "" if len(chain) == 1 and chain.isalpha() else ":"
    return f"{chain}{colon}{structure.residue_number[row]}{structure.insertion_code[row].strip()}"


def select_rows(structure: Structure, selection: str) -> np.ndarray:
    """Rows of the residues that a selection names.

    Parameters
    ----------
    selection : items separated by commas or blanks. An item is a chain (`B`), a residue (`A12`, with its insertion code
        `A12B`) or a range (`A12-20`, `A-3--1`, `A12-A20`), both ends included, in file order, so that the insertion
        codes between the ends belong to it. A colon may stand after the chain (`A:12`); chain identifiers that end with
        a digit may need it.

    Returns
    -------
    rows, each once, in the order in which the selection names them; empty for an empty selection

    Raises
    ------
    SelectionError : a chain or residue does not exist, a range runs backwards, or an item can be read in two ways
    """
    rows: list[int] = []
    for item in selection.replace(",", " ").split():
        rows += _item_rows(structure, item)
    return np.array(list(dict.fromkeys(rows)), dtype=np.int64)


def _item_rows(structure: Structure, item: str) -> list[int]:
    readings: list[list[int]] = []
    failures: list[str] = []
    fitting = [chain for chain in structure.chain_ids if _rest(item, chain) is not None]
    for chain in fitting:
        try:
            readings.append(_chain_rows(structure, chain, _rest(item, chain) or "", item))
        except SelectionError as error:
            failures.append(str(error))
    if len(readings) == 1:
        return readings[0]
    if readings:
        raise SelectionError(
            f"{structure.name}: {item!r} can be read in {len(readings)} ways; write a colon after the chain"
        )
    if failures:
        raise SelectionError("; or ".join(failures))
    raise SelectionError(f"{structure.name}: {item!r} names no chain; {_chains(structure, item)}")


def _rest(item: str, chain: str) -> str | None:
    """What follows the chain identifier in an item; None if the item is of another chain."""
    if ":" in item:
        named, _, rest = item.partition(":")
        return rest if named == chain else None
    if not item.startswith(chain):
        return None
    rest = item[len(chain) :]
    return rest if not rest or rest[0] in "-0123456789" else None


def _chain_rows(structure: Structure, chain: str, rest: str, item: str) -> list[int]:
    rows = np.flatnonzero(structure.chain_index == structure.chain_ids.index(chain))
    if not rest:
        return rows.tolist()
    parts = _RESIDUES.fullmatch(rest)
    if parts is None:
        raise SelectionError(f"{structure.name}: {item!r} is no residue; write A12, A12B or A12-20")
    first = _find(structure, rows, int(parts[1]), parts[2], item)
    if parts[3] is None:
        return [first]
    last_parts = _LAST.fullmatch(parts[3]) or _LAST.fullmatch(parts[3].removeprefix(chain).removeprefix(":"))
    if last_parts is None:
        raise SelectionError(f"{structure.name}: {item!r} does not end with a residue number; write A12-20")
    last = _find(structure, rows, int(last_parts[1]), last_parts[2], item)
    if last < first:
        raise SelectionError(f"{structure.name}: {item!r} runs backwards; the first residue must come first")
    return list(range(first, last + 1))


def _find(structure: Structure, rows: np.ndarray, number: int, code: str, item: str) -> int:
    numbers, codes = structure.residue_number[rows], structure.insertion_code[rows]
    found = rows[(numbers == number) & (codes == (code or " "))]
    if len(found) == 1:
        return int(found[0])
    name = f"{number}{code}"
    if len(found):
        raise SelectionError(f"{structure.name}: {item!r}: {name} is there {len(found)} times in its chain")
    nearest = rows[np.argsort(np.abs(numbers.astype(np.int64) - number), kind="stable")[:_NEAREST]]
    names = ", ".join(residue_name(structure, row) for row in np.sort(nearest).tolist())
    raise SelectionError(f"{structure.name}: {item!r}: there is no residue {name}; the nearest are {names}")


def _chains(structure: Structure, item: str) -> str:
    named = re.split(r"[:\d-]", item, maxsplit=1)[0] or item
    near = difflib.get_close_matches(named, structure.chain_ids, cutoff=0.5)
    near += [chain for chain in structure.chain_ids if chain.lower() == named.lower() and chain not in near]
    if near:
        return f"the nearest chain is {', '.join(map(repr, near))}"
    listed = ", ".join(map(repr, structure.chain_ids[:_MOST_CHAINS]))
    more = f" and {len(structure.chain_ids) - _MOST_CHAINS} more" if len(structure.chain_ids) > _MOST_CHAINS else ""
    return f"the chains are {listed}{more}"
