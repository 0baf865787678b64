"""Designs as FASTA records and back: headers that programs can read.

A header is the name of the structure, then fields `key=value`, separated by a comma and a blank. The first record of a
file is the native sequence, `1abc, native, chains=A:B`; the designs follow. Chains are separated by a slash, in the
order of `chains`. Commas and percent signs in names and values are written as %2C and %25.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from ..structures import Structure, StructureError, read_fasta, sequence_of

NATIVE = "native"  # field without a value


@dataclass(frozen=True)
class DesignRecord:
    """One designed sequence and how it came about.

    Attributes
    ----------
    name : of the structure
    sample : from 1, for each temperature
    score : nats per designed residue, lower is better (`sampling.Designs.score`)
    recovery : share of the designed residues with a known native type that have this type; NaN where there are none
    designed : number of designed residues
    temperature, steps, order, remask, seed : settings of sampling
    model : name of the model
    chains : identifiers in the order of the sequence
    sequence : one-letter, chains separated by slashes
    """

    name: str
    sample: int
    score: float
    recovery: float
    designed: int
    temperature: float
    steps: str
    order: str
    remask: float
    seed: int
    model: str
    chains: tuple[str, ...]
    sequence: str

    @property
    def header(self) -> str:
        """Without the ">"."""
        return ", ".join(
            [
                _quoted(self.name),
                f"sample={self.sample}",
                f"score={self.score:.4f}",
                f"recovery={self.recovery:.4f}",
                f"designed={self.designed}",
                f"temperature={self.temperature:g}",
                f"steps={self.steps}",
                f"order={self.order}",
                f"remask={self.remask:g}",
                f"seed={self.seed}",
                f"model={_quoted(self.model)}",
                f"chains={_joined(self.chains)}",
            ]
        )


def native_record(structure: Structure, **more: str) -> tuple[str, str]:
    """Header and sequence of the native record, with further fields."""
    entries = [_quoted(structure.name), NATIVE, f"chains={_joined(structure.chain_ids)}"]
    entries += [f"{key}={_quoted(value)}" for key, value in more.items()]
    return ", ".join(entries), chain_sequences(structure.residue_type, structure)


def chain_sequences(residue_type: np.ndarray, structure: Structure) -> str:
    """One-letter sequence, the chains separated by a slash."""
    return "/".join(
        sequence_of(residue_type[structure.chain_index == chain]) for chain in range(len(structure.chain_ids))
    )


def read_designs(path: str | Path) -> tuple[dict[str, str], list[DesignRecord]]:
    """A file of designs, as this package writes them.

    Returns
    -------
    fields of the native record, with `name` and `sequence`, and the designs

    Raises
    ------
    StructureError : it is no such file; the message names the header
    OSError : the file cannot be opened
    """
    records = [(parse_header(header, path), sequence) for header, sequence in read_fasta(path)]
    if NATIVE not in records[0][0]:
        raise StructureError(path, "the first record is not that of a native sequence; it was not written by design")
    natives = {**records[0][0], "sequence": records[0][1]}
    designs: list[DesignRecord] = []
    for values, sequence in records[1:]:
        missing = [
            entry.name for entry in fields(DesignRecord) if entry.name not in values and entry.name != "sequence"
        ]
        if missing:
            raise StructureError(path, f"record {len(designs) + 2} has no field {missing[0]!r}")
        try:
            designs.append(
                DesignRecord(
                    name=values["name"],
                    sample=int(values["sample"]),
                    score=float(values["score"]),
                    recovery=float(values["recovery"]),
                    designed=int(values["designed"]),
                    temperature=float(values["temperature"]),
                    steps=values["steps"],
                    order=values["order"],
                    remask=float(values["remask"]),
                    seed=int(values["seed"]),
                    model=values["model"],
                    chains=tuple(values["chains"].split(":")),
                    sequence=sequence,
                )
            )
        except ValueError as error:
            raise StructureError(path, f"record {len(designs) + 2}: {error}") from error
    return natives, designs


def parse_header(header: str, path: str | Path = "header") -> dict[str, str]:
    """Fields of a header; `name` is what stands first, a field without a value has an empty one.

    Raises
    ------
    StructureError : a field is there twice
    """
    name, *entries = header.split(", ")
    values = {"name": _plain(name)}
    for entry in entries:
        key, _, value = entry.partition("=")
        if key in values:
            raise StructureError(path, f"field {key!r} is there twice in header {header!r}")
        values[key] = _plain(value)
    return values


def plain_row(record: DesignRecord) -> dict[str, Any]:
    """The record for tables and JSON: chains as one text, NaN as None."""
    row: dict[str, Any] = {entry.name: getattr(record, entry.name) for entry in fields(record)}
    row["chains"] = _joined(record.chains)
    row["recovery"] = None if math.isnan(record.recovery) else record.recovery
    return row


def _quoted(text: str) -> str:
    return text.replace("%", "%25").replace(",", "%2C")


def _plain(text: str) -> str:
    return text.replace("%2C", ",").replace("%25", "%")


def _joined(chain_ids: Sequence[str]) -> str:
    return ":".join(map(_quoted, chain_ids))
