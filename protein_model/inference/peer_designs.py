"""Designed sequences of any tool, as FASTA -> the residues of the structures that they were designed for.

Which structure a record is for: its header up to the first comma, else the header's first word, else, for a header that
begins with `key=value`, the record before it, else the name of the file. Records of the native sequence (a field
`native`, or what ProteinMPNN and LigandMPNN write first) are no designs; they tell the chains and are checked.

Chains are separated by `/` or `:`. Their order is that of a field `chains=A:B` or, of ProteinMPNN,
`designed_chains=['A', 'B']`, else that of the structure. Chains that such a field leaves out were not designed and are
not compared. A chain has one letter for each residue of the structure, or for each with a complete backbone, or for
each author number from the first to the last; `X` and `-` are residues without a design.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..structures import UNKNOWN_RESIDUE, Structure, StructureError, encode_sequence, read_fasta
from ..wording import counted
from .evaluation import Evaluated, EvaluationError
from .metrics import scored_residues

FASTA_ENDINGS = (".fa", ".fasta", ".faa", ".fa.gz", ".fasta.gz", ".faa.gz")
MIN_NATIVE_AGREEMENT = 0.9  # tools differ in what they make of modified residues; another protein agrees to about 0.1
_NAMES_SHOWN = 5


class UnusableRecord(Exception):
    """A record does not fit its structure; the message says why."""


@dataclass(frozen=True)
class Record:
    """One sequence of a FASTA file.

    Attributes
    ----------
    file : that it is from
    header : without the ">"
    sequence : as it stands there
    native : it is the native sequence, not a design
    chains : author identifiers in the order of the sequence, None where neither it nor its native record says
    candidates : names that its structure may have, the likeliest first
    """

    file: Path
    header: str
    sequence: str
    native: bool
    chains: tuple[str, ...] | None
    candidates: tuple[str, ...]


def find_fasta_files(path: Path) -> list[Path]:
    """A FASTA file, or those in a folder and below it, sorted.

    Raises
    ------
    EvaluationError : there is none
    """
    if path.is_file():
        return [path]
    found = sorted(file for file in path.rglob("*") if file.name.lower().endswith(FASTA_ENDINGS) and file.is_file())
    if not found:
        raise EvaluationError(f"{path}: no FASTA file found; searched for {', '.join(FASTA_ENDINGS)}")
    return found


def read_records(file: Path) -> list[Record]:
    """All records of a file.

    Raises
    ------
    StructureError : it is no FASTA file
    """
    records: list[Record] = []
    name: str | None = None
    chains: tuple[str, ...] | None = None
    for header, sequence in read_fasta(file):
        first, *fields = (field.strip() for field in header.split(","))
        anonymous = "=" in first
        if not anonymous and first != name:
            name, chains = first, None
        chains = _chains(header) or chains
        keys = {field.partition("=")[0].strip() for field in fields}
        native = "native" in fields or bool(keys & {"designed_chains", "num_res"})
        stated = (first, *header.split()[:1]) if not anonymous else () if name is None else (name,)
        records.append(Record(file, header, sequence, native, chains, (*stated, _stem(file))))
    return records


def _chains(header: str) -> tuple[str, ...] | None:
    listed = re.search(r"designed_chains=\[([^\]]*)\]", header)
    if listed:
        return tuple(re.findall(r"['\"]([^'\"]*)['\"]", listed[1]))
    named = re.search(r"(?:^|,)\s*chains=([^,]*)", header)
    return tuple(named[1].strip().split(":")) if named else None


def _stem(file: Path) -> str:
    name = file.name
    for ending in sorted(FASTA_ENDINGS, key=len, reverse=True):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name


def match_designs(path: Path, structures: Sequence[Structure]) -> tuple[list[Evaluated], list[str]]:
    """Designs for each structure that has some.

    Parameters
    ----------
    path : FASTA file, or a folder of them
    structures : with their native sequences

    Returns
    -------
    structures with their designs, in their order · what could not be used, one line each

    Raises
    ------
    EvaluationError : nothing fits, or two structures have one name
    """
    by_name: dict[str, Structure] = {}
    for structure in structures:
        if by_name.setdefault(structure.name, structure) is not structure:
            raise EvaluationError(f"two structures are called {structure.name}, so designs for it cannot be told apart")
    records: list[Record] = []
    problems: list[str] = []
    for file in find_fasta_files(path):
        try:
            records += read_records(file)
        except StructureError as error:
            problems.append(str(error))
    designs: dict[str, list[np.ndarray]] = {name: [] for name in by_name}
    compared: dict[str, np.ndarray] = {}
    for record in records:
        name = next((candidate for candidate in record.candidates if candidate in by_name), None)
        if name is None:
            problems.append(f"{record.file}: no structure is called {record.candidates[0]!r}")
            continue
        try:
            types, designed = place_sequence(record.sequence, record.chains, by_name[name])
            if record.native:
                _check_native(types, by_name[name])
                continue
            if not np.array_equal(compared.setdefault(name, designed), designed):
                raise UnusableRecord("is for other chains than the designs before it")
            designs[name].append(types)
        except UnusableRecord as problem:
            problems.append(f"{record.file}: {record.header.split(',')[0]!r} {problem}")
    found = [
        Evaluated(_without_fixed(by_name[name], compared[name]), designs=np.stack(samples))
        for name, samples in designs.items()
        if samples
    ]
    if not found:
        wanted = ", ".join(list(by_name)[:_NAMES_SHOWN])
        raise EvaluationError(
            f"--designs {path}: no design fits a structure; the structures are called, for example, {wanted}"
            + (f"; the first problem: {problems[0]}" if problems else "")
        )
    problems += [f"{name}: has no design" for name, samples in designs.items() if not samples]
    return found, problems


def _without_fixed(structure: Structure, designed: np.ndarray) -> Structure:
    """What nobody was asked to design has no native type to be compared with."""
    return replace(structure, residue_type=np.where(designed, structure.residue_type, UNKNOWN_RESIDUE).astype(np.int8))


def place_sequence(sequence: str, named: tuple[str, ...] | None, structure: Structure) -> tuple[np.ndarray, np.ndarray]:
    """A sequence on the residues of a structure.

    Parameters
    ----------
    sequence : one-letter, chains separated by `/` or `:`
    named : chain identifiers in their order, None for those of the structure

    Returns
    -------
    (L,) int8 types, 20 where there is none · (L,) bool, residues of the chains that it is for

    Raises
    ------
    UnusableRecord : it does not fit; the message goes on after the name of the record
    """
    parts = re.split(r"[/:]", sequence)
    # Of a single chain it does not matter what it is called; benchmark lists do not say.
    chains = structure.chain_ids if named is None else named
    if len(parts) == len(chains) == len(structure.chain_ids) == 1:
        chains = structure.chain_ids
    if len(chains) != len(parts):
        whose = "the structure has" if named is None else "its header names"
        raise UnusableRecord(
            f"has {counted(len(parts), 'chain')} where {whose} {len(chains)}; name those that were "
            "designed in the header: chains=A:B"
        )
    types = np.full(len(structure), UNKNOWN_RESIDUE, np.int8)
    designed = np.zeros(len(structure), bool)
    for chain_id, letters in zip(chains, parts, strict=True):
        if chain_id not in structure.chain_ids:
            raise UnusableRecord(f"names chain {chain_id!r}; the structure has {', '.join(structure.chain_ids)}")
        rows = np.flatnonzero(structure.chain_index == structure.chain_ids.index(chain_id))
        try:
            found = encode_sequence(letters.replace("-", "X"))
        except ValueError as error:
            raise UnusableRecord(f"cannot be read: {error}") from error
        designed[rows] = True
        types[rows] = _on_residues(found, structure, rows, chain_id)
    return types, designed


def _on_residues(found: np.ndarray, structure: Structure, rows: np.ndarray, chain_id: str) -> np.ndarray:
    """Types for the residues of one chain, by the way of counting residues that the number of letters shows."""
    complete = structure.backbone_complete[rows]
    types = np.full(len(rows), UNKNOWN_RESIDUE, np.int8)
    if len(found) == len(rows):
        return found
    if len(found) == complete.sum():
        types[complete] = found
        return types
    slots = _numbered_slots(structure.residue_number[rows], structure.insertion_code[rows])
    if slots is not None and len(found) == slots[-1] + 1:
        return found[slots]
    raise UnusableRecord(
        f"has {counted(len(found), 'letter')} for chain {chain_id!r} of {counted(len(rows), 'residue')}, "
        f"{complete.sum()} of them with a complete backbone"
    )


def _numbered_slots(number: np.ndarray, insertion_code: np.ndarray) -> np.ndarray | None:
    """(R,) place of every residue where a letter stands for each author number, missing or not, and insertion code.

    So ProteinMPNN writes chains with gaps. None where the numbers are out of order.
    """
    step = np.diff(number.astype(np.int64))
    inserted = (step == 0) & (insertion_code[1:] != insertion_code[:-1])
    if not ((step > 0) | inserted).all():
        return None
    return np.concatenate([[0], np.cumsum(np.maximum(step, 1))])


def _check_native(types: np.ndarray, structure: Structure) -> None:
    known = scored_residues(structure) & (types != UNKNOWN_RESIDUE)
    agreement = float((types[known] == structure.residue_type[known]).mean()) if known.any() else 1.0
    if agreement < MIN_NATIVE_AGREEMENT:
        raise UnusableRecord(
            f"is a native sequence that agrees with that of the structure in {100 * agreement:.0f} % only"
        )
