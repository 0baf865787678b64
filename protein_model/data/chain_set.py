"""Reading `chain_set.jsonl`, the layout in which CATH 4.2 is published for protein design: one JSON object per line.

A line has `name` ("12as.A"), `seq` and `coords`, a dictionary with `N`, `CA`, `C` and `O`, each a list of one [x, y, z]
per residue, NaN where the residue is not resolved. The file is read in blocks of lines, which take the place of files.

A line has every residue of its chain, resolved or not, so that places in the sequence are label numbers: an unresolved
residue is itself the gap. Where two resolved neighbours are too far apart for a bond, the chain is broken all the same.

Benchmarks such as TS50 are published as one JSON list of such objects, read by `read_chain_list`; there, `coords` may
be a list of one [N, CA, C, O] per residue.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..structures import BACKBONE_ATOM_COUNT, MAX_HEAVY_ATOMS, Structure, encode_sequence
from ..structures.positions import peptide_bonds, position_index
from .errors import CacheError

LINES_PER_BLOCK = 256
ATOM_NAMES = ("N", "CA", "C", "O")


@dataclass(frozen=True)
class Block:
    """A run of whole lines: where it begins, how many bytes it has and the hash of those bytes."""

    start: int
    length: int
    digest: str


def scan_blocks(location: Path) -> list[Block]:
    """Cut a file into blocks of `LINES_PER_BLOCK` lines."""
    blocks: list[Block] = []
    with open(location, "rb") as handle:
        start = 0
        while True:
            digest = hashlib.blake2b(digest_size=16)
            length = 0
            for _ in range(LINES_PER_BLOCK):
                line = handle.readline()
                if not line:
                    break
                digest.update(line)
                length += len(line)
            if not length:
                return blocks
            blocks.append(Block(start, length, digest.hexdigest()))
            start += length


def read_block(location: Path, start: int, length: int) -> bytes:
    """The bytes of a block."""
    with open(location, "rb") as handle:
        handle.seek(start)
        return handle.read(length)


def parse_lines(content: bytes, first_line: int) -> Iterator[tuple[str, Structure | str]]:
    """Structures of a block.

    Parameters
    ----------
    content : whole lines
    first_line : number of the first of them in the file, from 1

    Yields
    ------
    The name of the structure, or "line N" where it has none, and the structure, or the reason why there is none.
    """
    for number, line in enumerate(content.splitlines(), start=first_line):
        if not line.strip():
            continue
        label = f"line {number}"
        try:
            entry = json.loads(line)
            label = str(entry["name"]).encode("utf-8", "backslashreplace").decode() or label
            yield label, _structure(entry)
        except json.JSONDecodeError as error:
            yield label, f"line is not JSON: line {number}, {error}"
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            yield label, f"line lacks what a chain set has: line {number}, {type(error).__name__}: {error}"


def read_chain_list(location: Path) -> Iterator[tuple[str, Structure | str]]:
    """Structures of a `.jsonl` file, or of a JSON file that holds one list of the same objects.

    Yields
    ------
    As `parse_lines`; an object without a name is called by its place in the list, from 1.

    Raises
    ------
    CacheError : the file cannot be read, or is no JSON list
    """
    try:
        content = location.read_bytes()
    except OSError as error:
        raise CacheError(f"{location}: cannot be read: {error.strerror}") from error
    if location.name.lower().endswith(".jsonl"):
        yield from parse_lines(content, 1)
        return
    try:
        entries = json.loads(content)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CacheError(f"{location}: not JSON ({error})") from error
    if not isinstance(entries, list):
        raise CacheError(f'{location}: must be a list of objects with "name", "seq" and "coords"')
    for number, entry in enumerate(entries, start=1):
        label = f"entry {number}"
        try:
            label = str(entry["name"])
            yield label, _structure(entry)
        except (KeyError, TypeError, ValueError) as error:
            yield label, f"lacks what a chain list has: entry {number}, {type(error).__name__}: {error}"


def _structure(entry: dict) -> Structure:
    name = entry["name"]
    if not isinstance(name, str) or not name:
        raise ValueError(f"the name must be text, but is {name!r}")
    name.encode("utf-8")  # JSON can escape characters that no text has
    sequence = encode_sequence(entry["seq"])
    length = len(sequence)
    if not length:
        raise ValueError("there are no residues")
    coords = entry["coords"]
    if not isinstance(coords, dict):
        per_residue = np.asarray(coords, np.float32).reshape(-1, len(ATOM_NAMES), 3)
        coords = {atom: per_residue[:, index] for index, atom in enumerate(ATOM_NAMES)}
    atoms = [np.asarray(coords[atom], np.float32).reshape(-1, 3) for atom in ATOM_NAMES]
    for atom, xyz in zip(ATOM_NAMES, atoms, strict=True):
        if len(xyz) != length:
            raise ValueError(f"{len(xyz)} coordinates of {atom} for {length} residues")
    backbone = np.stack(atoms, axis=1)
    present = np.asarray(np.isfinite(backbone).all(axis=-1))
    coordinates = np.zeros((length, MAX_HEAVY_ATOMS, 3), np.float32)
    coordinates[:, :BACKBONE_ATOM_COUNT] = np.where(present[..., None], backbone, 0)
    mask = np.zeros((length, MAX_HEAVY_ATOMS), bool)
    mask[:, :BACKBONE_ATOM_COUNT] = present
    chain_id = name.rpartition(".")[2] if "." in name else "A"
    chain_index = np.zeros(length, np.int16)
    residue_number = np.arange(1, length + 1, dtype=np.int32)
    insertion_code = np.full(length, " ", dtype="U1")
    bonded = peptide_bonds(coordinates, mask, chain_index, residue_number, insertion_code, label=residue_number)
    return Structure(
        name=name,
        residue_type=sequence,
        coordinates=coordinates,
        atom_mask=mask,
        b_factor=np.zeros(mask.shape, np.float32),
        occupancy=mask.astype(np.float32),
        chain_index=chain_index,
        chain_ids=(chain_id,),
        residue_number=residue_number,
        insertion_code=insertion_code,
        position=position_index(bonded, chain_index, residue_number, label=residue_number),
    )
