"""Sequences that a person gives as FASTA: which structure each is for, and their residue types on its residues.

Headers and sequences are read as `peer_designs` describes; native sequences are sequences like others here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..structures import Structure
from .peer_designs import Record, UnusableRecord, find_fasta_files, place_sequence, read_records


def records_for(path: Path, names: Sequence[str]) -> tuple[dict[str, list[Record]], list[str]]:
    """Sequences of each structure.

    Parameters
    ----------
    path : FASTA file, or folder of them
    names : of the structures; where there is only one, all sequences are for it, whatever their headers say

    Returns
    -------
    records by name of the structure, in their order · one line for each record that is for none

    Raises
    ------
    UserError : there is no FASTA file, or one of them cannot be read
    """
    found: dict[str, list[Record]] = {name: [] for name in names}
    problems: list[str] = []
    for file in find_fasta_files(path):
        for record in read_records(file):
            name = next((candidate for candidate in record.candidates if candidate in found), None)
            if name is None and len(found) == 1:
                name = names[0]
            if name is None:
                problems.append(f"{file}: no structure is called {record.candidates[0]!r}")
            else:
                found[name].append(record)
    return found, problems


def types_on(records: Sequence[Record], structure: Structure) -> tuple[list[str], np.ndarray, list[str]]:
    """Residue types of the sequences that fit a structure.

    Returns
    -------
    headers · (S, L) int8 types, 20 where unknown · one line for each record that does not fit
    """
    headers: list[str] = []
    types: list[np.ndarray] = []
    problems: list[str] = []
    for record in records:
        try:
            types.append(place_sequence(record.sequence, record.chains, structure)[0])
            headers.append(record.header)
        except UnusableRecord as problem:
            problems.append(f"{record.file}: {record.header.split(',')[0]!r} {problem}")
    return headers, np.stack(types) if types else np.zeros((0, len(structure)), np.int8), problems
