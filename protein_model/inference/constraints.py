"""What a person demands of a design, in names, and what it means for each residue of a structure, in arrays.

`Constraints` are for any structure; `design_plan` makes of them what sampling and scoring use. This is the only place
of design where native residue types are looked at: those of residues that are to stay become `DesignPlan.fixed_type`.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..structures import RESIDUE_LETTERS, UNKNOWN_RESIDUE, Structure
from ..structures.selections import SelectionError, residue_name, select_rows
from ..wording import counted

NUM_RESIDUE_TYPES = 20
DESIGNED = -1  # in `DesignPlan.fixed_type`
OPEN_LETTERS = "X_-"  # in a given sequence: to be designed
ALL_INPUTS = "*"  # key of a constraints file


class ConstraintError(UserError, ValueError):
    """A constraint names something that is not there, contradicts another one, or leaves nothing to choose from."""


@dataclass(frozen=True)
class Constraints:
    """What a design must keep to. Selections are written as `structures.selections.select_rows` reads them.

    Attributes
    ----------
    fixed : selection; these residues keep their native type, which the model sees
    designed : selection; where given, all other residues are fixed
    excluded : selection; the model does not see these residues at all, as if the file did not have them
    sequence : chain -> one-letter sequence of its residues in file order; a letter fixes the residue to that type, `X`,
        `_` or `-` leaves it open
    tied : residues that get one type together: `A10=B10=C10`; `A1-20=B31-50`, by their order; `A=B=C`, whole chains, by
        residue number and insertion code. A part may have a weight, `A=-0.5*B`, 1 by default
    homo_oligomer : all chains are tied, by residue number and insertion code
    omit : residue types that are never chosen, as letters
    omit_at : selection -> such types for some residues
    bias : residue type -> what is added to its logit, in nats at temperature 1
    bias_at : selection -> the same for some residues
    temperature : instead of that of the run
    temperature_at : selection -> temperature for some residues
    """

    fixed: str = ""
    designed: str = ""
    excluded: str = ""
    sequence: Mapping[str, str] = field(default_factory=dict)
    tied: tuple[str, ...] = ()
    homo_oligomer: bool = False
    omit: str = ""
    omit_at: Mapping[str, str] = field(default_factory=dict)
    bias: Mapping[str, float] = field(default_factory=dict)
    bias_at: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    temperature: float | None = None
    temperature_at: Mapping[str, float] = field(default_factory=dict)


def constraints_from(entries: Mapping[str, Any], lead: str) -> Constraints:
    """Constraints as a JSON object has them, checked.

    Parameters
    ----------
    entries : names and values of `Constraints`
    lead : what comes before a name in messages, such as "1abc: " or "--"

    Raises
    ------
    ConstraintError : there is no such name, or a value that cannot be meant for any structure
    """
    known = {entry.name for entry in fields(Constraints)}
    for name, value in entries.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=2) or sorted(known)
            raise ConstraintError(f"{lead}unknown constraint {name!r}; did you mean {' or '.join(near)}?")
        if not _KINDS[name][0](value):
            raise ConstraintError(f"{lead}{name} must be {_KINDS[name][1]}, but is {json.dumps(value)[:60]}")
    values = dict(entries)
    if "tied" in values:
        values["tied"] = tuple(values["tied"])
    constraints = Constraints(**values)
    _refuse_what_fits_no_structure(constraints, lead)
    return constraints


def _refuse_what_fits_no_structure(constraints: Constraints, lead: str) -> None:
    letters: dict[str, Iterable[str]] = {"omit": constraints.omit, "bias": constraints.bias}
    letters |= {f"omit_at {selection}": omitted for selection, omitted in constraints.omit_at.items()}
    letters |= {f"bias_at {selection}": biases for selection, biases in constraints.bias_at.items()}
    for chain, sequence in constraints.sequence.items():
        letters[f"sequence {chain}"] = [letter for letter in sequence.upper() if letter not in OPEN_LETTERS]
    types = {place: {_type_of(letter, lead + place) for letter in found} for place, found in letters.items()}
    if len(types["omit"]) == NUM_RESIDUE_TYPES:
        raise ConstraintError(f"{lead}omit: leaves no residue type to choose; take out those that may be chosen")
    for tie in constraints.tied:
        _tie_parts(tie, lead)


def read_constraints_file(path: str | Path) -> dict[str, dict[str, Any]]:
    """A JSON file with constraints: `{"*": {for all inputs}, "1abc": {for this one}}`.

    Returns
    -------
    checked entries by name of the input

    Raises
    ------
    ConstraintError : there is no such file, or it is no such JSON; the message says where
    """
    named = f"--constraints {path}"

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for key in (key for key, _ in pairs):
            if sum(key == other for other, _ in pairs) > 1:
                raise ConstraintError(f"{named}: {key!r} is there twice in one object; the first would be lost")
        return dict(pairs)

    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"), object_pairs_hook=unique)
    except OSError as error:
        raise ConstraintError(f"{named}: cannot be opened: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConstraintError(f"{named}: is no JSON: {error}") from error
    if not isinstance(document, dict) or not all(isinstance(entry, dict) for entry in document.values()):
        raise ConstraintError(f'{named}: must be an object of objects, {{"name of an input": {{"fixed": "A12-20"}}}}')
    for name, entries in document.items():
        constraints_from(entries, f"{named}: {name!r}: ")
    return document


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_text_map(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_text, value)) and all(map(_is_text, value.values()))


def _is_number_map(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_text, value)) and all(map(_is_number, value.values()))


_TEXT = (_is_text, 'text, such as "A12-20,B"')
_KINDS = {
    "fixed": _TEXT,
    "designed": _TEXT,
    "excluded": _TEXT,
    "sequence": (_is_text_map, 'an object from chains to sequences, such as {"A": "MK__T"}'),
    "tied": (
        lambda value: isinstance(value, list | tuple) and all(map(_is_text, value)),
        'a list of texts, such as ["A=B", "C10=D10"]',
    ),
    "homo_oligomer": (lambda value: isinstance(value, bool), "true or false"),
    "omit": (_is_text, 'letters, such as "CM"'),
    "omit_at": (_is_text_map, 'an object from residues to letters, such as {"A12-20": "CM"}'),
    "bias": (_is_number_map, 'an object from letters to numbers, such as {"A": -0.5}'),
    "bias_at": (
        lambda value: isinstance(value, Mapping) and all(map(_is_number_map, value.values())),
        'an object such as {"A12": {"K": 1.5}}',
    ),
    "temperature": (lambda value: value is None or (_is_number(value) and value >= 0), "a number of at least 0"),
    "temperature_at": (
        lambda value: _is_number_map(value) and all(number >= 0 for number in value.values()),
        'an object from residues to numbers of at least 0, such as {"A12-20": 0.5}',
    ),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class DesignPlan:
    """Constraints on one structure of `L` residues, `U` choices to be made: one for each residue or tied group.

    Attributes
    ----------
    visible : (L,) bool, residues that the model sees: complete backbone, not excluded
    fixed_type : (L,) int8, the type that a residue keeps (20 where that is unknown), -1 where it keeps none
    unit : (L,) int64, the choice that gives the residue its type; -1 for fixed residues and those that get none
    weight : (L,) float64, weight of a residue's logits in its choice; 0 where it has no say
    bias : (U, 20) float64, added to the logits; minus infinity for types that are never chosen
    temperature : (U,) float64, NaN for the one of the run
    """

    visible: np.ndarray
    fixed_type: np.ndarray
    unit: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    temperature: np.ndarray

    @property
    def designed(self) -> np.ndarray:
        """(L,) bool, residues that get a type by design."""
        designed: np.ndarray = self.unit >= 0
        return designed


def design_plan(structure: Structure, constraints: Constraints | None = None) -> DesignPlan:
    """What constraints mean for a structure.

    A tied group is one choice. Its logits are the mean over its visible residues of weight times logit, as in
    ProteinMPNN (Dauparas et al. 2022). A type that one of them omits is omitted for all; a bias or temperature of some
    residues of a group is one of the group, of several biases the mean; what is fixed for one is fixed for all.
    Residues without a complete backbone that are tied to others get the type of these.

    Raises
    ------
    ConstraintError : a name does not exist (the message has the nearest that do), or constraints contradict each other
    """
    constraints = constraints or Constraints()
    excluded = _rows(structure, constraints.excluded, "excluded")
    visible = structure.backbone_complete.copy()
    visible[excluded] = False
    fixed_type = _fixed_types(structure, constraints, excluded)
    group, weight = _groups(structure, constraints, excluded)
    _spread_fixed_types(structure, group, fixed_type)

    weight[~visible | (fixed_type != DESIGNED)] = 0.0
    free = fixed_type == DESIGNED
    free[excluded] = False
    # A group can be designed if the model sees one of its residues.
    seen = np.zeros(len(structure), bool)
    seen[group[free & visible]] = True
    free &= seen[group]
    unit = np.full(len(structure), -1, np.int64)
    leaders, unit[free] = np.unique(group[free], return_inverse=True)
    count = len(leaders)
    voices = np.bincount(unit[free & visible], minlength=count)
    weight[free] /= voices[unit[free]]
    if constraints.temperature is not None:
        temperature = np.full(count, constraints.temperature)
    else:
        temperature = np.full(count, np.nan)
    _set_temperatures(structure, constraints, unit, temperature)
    bias = _biases(structure, constraints, unit, count)
    closed = np.isneginf(bias).all(axis=1)
    if closed.any():
        row = int(np.argmax(unit == int(np.argmax(closed))))
        raise ConstraintError(f"{structure.name}: all residue types are omitted at {residue_name(structure, row)}")
    return DesignPlan(visible, fixed_type, unit, weight, bias, temperature)


def _rows(structure: Structure, selection: str, name: str) -> np.ndarray:
    try:
        return select_rows(structure, selection)
    except SelectionError as error:
        raise ConstraintError(f"{name}: {error}") from error


def _fixed_types(structure: Structure, constraints: Constraints, excluded: np.ndarray) -> np.ndarray:
    """(L,) int8, types of fixed residues; native ones are read here and nowhere else."""
    keeps_native = np.zeros(len(structure), bool)
    if constraints.designed:
        keeps_native[:] = True
        keeps_native[_rows(structure, constraints.designed, "designed")] = False
    fixed = _rows(structure, constraints.fixed, "fixed")
    keeps_native[fixed] = True
    both = np.intersect1d(fixed, excluded)
    if len(both):
        raise ConstraintError(f"{structure.name}: {residue_name(structure, int(both[0]))} is both fixed and excluded")
    keeps_native[excluded] = False
    fixed_type = np.where(keeps_native, structure.residue_type, DESIGNED).astype(np.int8)
    for chain, sequence in constraints.sequence.items():
        if chain not in structure.chain_ids:
            near = difflib.get_close_matches(chain, structure.chain_ids, cutoff=0) or structure.chain_ids
            raise ConstraintError(
                f"sequence: {structure.name} has no chain {chain!r}; the nearest is {', '.join(map(repr, near[:3]))}"
            )
        rows = np.flatnonzero(structure.chain_index == structure.chain_ids.index(chain))
        if len(sequence) != len(rows):
            raise ConstraintError(
                f"sequence: {structure.name}: that of chain {chain!r} has {counted(len(sequence), 'letter')}, but "
                f"the chain has {counted(len(rows), 'residue')}"
            )
        for row, letter in zip(rows.tolist(), sequence.upper(), strict=True):
            if letter in OPEN_LETTERS:
                continue
            if row in excluded:
                raise ConstraintError(f"{structure.name}: {residue_name(structure, row)} is excluded, but has a type")
            fixed_type[row] = _type_of(letter, f"sequence: {structure.name}, chain {chain!r}")
    return fixed_type


def _type_of(letter: str, where: str) -> int:
    index = RESIDUE_LETTERS.find(letter.upper()) if len(letter) == 1 else -1
    if not 0 <= index < NUM_RESIDUE_TYPES:
        raise ConstraintError(f"{where}: {letter!r} is no residue type; the types are {RESIDUE_LETTERS[:-1]}")
    return index


def _groups(structure: Structure, constraints: Constraints, excluded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(L,) first row of the tied group of each residue, (L,) weights; an untied residue is a group of its own."""
    ties = list(constraints.tied)
    if constraints.homo_oligomer and len(structure.chain_ids) > 1:
        ties.append("=".join(f"{chain}:" for chain in structure.chain_ids))
    group, weight = np.arange(len(structure)), np.ones(len(structure))
    tied = np.zeros(len(structure), bool)
    is_excluded = np.zeros(len(structure), bool)
    is_excluded[excluded] = True
    for tie in ties:
        parts, weights = _tie_parts(tie)
        for members in _tie_members(structure, tie, parts):
            # An excluded residue has no part in anything.
            members = [(part, row) for part, row in members if not is_excluded[row]]
            if not members:
                continue
            rows = np.array([row for _, row in members])
            if len(set(rows.tolist())) < len(rows):
                raise ConstraintError(f"tied: {structure.name}: {tie!r} ties a residue to itself")
            if tied[rows].any():
                name = residue_name(structure, int(rows[np.argmax(tied[rows])]))
                raise ConstraintError(
                    f"tied: {structure.name}: {name} is in two ties; join them into one, such as A10=B10=C10"
                )
            tied[rows] = True
            group[rows] = rows.min()
            weight[rows] = [weights[part] for part, _ in members]
    return group, weight


def _tie_parts(tie: str, lead: str = "") -> tuple[list[str], list[float]]:
    parts, weights = [], []
    for text in tie.split("="):
        factor, star, selection = text.rpartition("*")
        try:
            weight = float(factor) if star else 1.0
        except ValueError:
            weight = math.nan
        if not math.isfinite(weight):
            raise ConstraintError(f"{lead}tied: {tie!r}: {factor.strip()!r} is no weight; write A=0.5*B")
        parts.append(selection.strip())
        weights.append(weight)
    if len(parts) < 2 or not all(parts):
        raise ConstraintError(f"{lead}tied: {tie!r} does not tie anything; write A10=B10, A1-20=B1-20 or A=B=C")
    return parts, weights


def _tie_members(structure: Structure, tie: str, parts: list[str]) -> list[list[tuple[int, int]]]:
    """Groups of (part, row)."""
    rows = [_rows(structure, part, "tied").tolist() for part in parts]
    if all(part.removesuffix(":") in structure.chain_ids for part in parts):
        by_name: dict[tuple[int, str], list[tuple[int, int]]] = {}
        for part, members in enumerate(rows):
            for row in members:
                name = (int(structure.residue_number[row]), str(structure.insertion_code[row]))
                by_name.setdefault(name, []).append((part, row))
        groups = [members for members in by_name.values() if len(members) > 1]
        if not groups:
            raise ConstraintError(
                f"tied: {structure.name}: the chains of {tie!r} have no residue number in common; tie ranges by their "
                "order instead, such as A1-20=B101-120"
            )
        return groups
    lengths = [len(members) for members in rows]
    if len(set(lengths)) > 1:
        counts = " and ".join(f"{part} has {length}" for part, length in zip(parts, lengths, strict=True))
        raise ConstraintError(f"tied: {structure.name}: parts of {tie!r} differ in length: {counts} residues")
    return [list(enumerate(members)) for members in zip(*rows, strict=True)]


def _spread_fixed_types(structure: Structure, group: np.ndarray, fixed_type: np.ndarray) -> None:
    """What is fixed for one residue of a tied group is fixed for all."""
    order = np.argsort(group, kind="stable")
    _, starts, counts = np.unique(group[order], return_index=True, return_counts=True)
    for index in np.flatnonzero(counts > 1).tolist():
        rows = order[starts[index] : starts[index] + counts[index]]
        fixed = rows[fixed_type[rows] != DESIGNED]
        if not len(fixed):
            continue
        types = fixed_type[fixed]
        if (types == UNKNOWN_RESIDUE).any():
            name = residue_name(structure, int(fixed[np.argmax(types == UNKNOWN_RESIDUE)]))
            raise ConstraintError(f"{structure.name}: {name} is tied and fixed, but its type is unknown")
        other = types != types[0]
        if other.any():
            names = [residue_name(structure, int(row)) for row in (fixed[0], fixed[np.argmax(other)])]
            letters = [RESIDUE_LETTERS[kind] for kind in (types[0], types[np.argmax(other)])]
            raise ConstraintError(
                f"{structure.name}: {names[0]} and {names[1]} are tied, but fixed to {letters[0]} and {letters[1]}"
            )
        fixed_type[rows] = types[0]


def _set_temperatures(
    structure: Structure, constraints: Constraints, unit: np.ndarray, temperature: np.ndarray
) -> None:
    given = np.full(len(temperature), np.nan)
    for selection, value in constraints.temperature_at.items():
        rows = _rows(structure, selection, "temperature_at")
        for row in rows[unit[rows] >= 0].tolist():
            if not math.isnan(given[unit[row]]) and given[unit[row]] != value:
                raise ConstraintError(
                    f"temperature_at: {structure.name}: {residue_name(structure, row)}, or what it is tied to, has two "
                    f"temperatures, {given[unit[row]]:g} and {value:g}"
                )
            given[unit[row]] = value
    has_own = ~np.isnan(given)
    temperature[has_own] = given[has_own]


def _biases(structure: Structure, constraints: Constraints, unit: np.ndarray, count: int) -> np.ndarray:
    everywhere = np.zeros(NUM_RESIDUE_TYPES)
    for letter, value in constraints.bias.items():
        everywhere[_type_of(letter, "bias")] += value
    by_row = np.zeros((len(structure), NUM_RESIDUE_TYPES))
    carries = np.zeros(len(structure), bool)
    for selection, letters in constraints.bias_at.items():
        rows = _rows(structure, selection, "bias_at")
        carries[rows] = True
        for letter, value in letters.items():
            by_row[rows, _type_of(letter, f"bias_at: {selection}")] += value
    carriers = np.flatnonzero(carries & (unit >= 0))
    bias = np.zeros((count, NUM_RESIDUE_TYPES))
    np.add.at(bias, unit[carriers], by_row[carriers])
    bias /= np.maximum(np.bincount(unit[carriers], minlength=count), 1)[:, None]
    bias += everywhere
    bias[:, [_type_of(letter, "omit") for letter in constraints.omit]] = -np.inf
    for selection, letters_omitted in constraints.omit_at.items():
        rows = _rows(structure, selection, "omit_at")
        types = np.array([_type_of(letter, f"omit_at: {selection}") for letter in letters_omitted], np.int64)
        bias[np.ix_(np.unique(unit[rows][unit[rows] >= 0]), types)] = -np.inf
    return bias
