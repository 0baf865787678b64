"""Structure -> row of the cache, and back.

A row is one chain or one complex in compact columns (`SCHEMA`). `RowReader` gives the columns of a row as NumPy views
into memory-mapped Arrow buffers, without a copy. Which rows there are and in which files is left to `shards` and
`cache`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from ..structures import Structure
from ..structures.structure import BACKBONE_ATOM_COUNT, MAX_HEAVY_ATOMS

LIST_COLUMNS: dict[str, np.dtype] = {
    "chain_index": np.dtype(np.int16),
    "residue_type": np.dtype(np.int8),
    "position": np.dtype(np.int32),
    "residue_number": np.dtype(np.int32),
    "atom_mask": np.dtype(np.uint16),
    "backbone": np.dtype(np.float32),
    "sidechain": np.dtype(np.float32),
    "b_factor": np.dtype(np.float32),
}
ATOM_BITS = (1 << np.arange(MAX_HEAVY_ATOMS)).astype(np.uint16)
RESOLUTION_DECIMALS = 3  # PDB files state two; float32 holds three exactly enough to give the same number back

# Columns of the cache.
# name, stem, source : of the structure, of its file without endings, of its file relative to the data folder
# length : residues L
# chain_ids : author identifiers
# chain_index, residue_type, position, residue_number : (L,)
# insertion_code : L characters
# atom_mask : (L,), bit a is set where heavy atom a is present
# backbone : (L * 12,) angstrom, N CA C O, 0 where absent
# sidechain : x y z of the present heavy atoms beyond O, residue by residue
# b_factor : (L,) square angstrom, mean over the present heavy atoms
# resolution : angstrom or null
# method : experimental method
SCHEMA = pa.schema(
    {
        "name": pa.string(),
        "stem": pa.string(),
        "source": pa.string(),
        "length": pa.int32(),
        "chain_ids": pa.list_(pa.string()),
        "insertion_code": pa.string(),
        "resolution": pa.float32(),
        "method": pa.string(),
        **{name: pa.list_(pa.from_numpy_dtype(dtype)) for name, dtype in LIST_COLUMNS.items()},
    }
)


@dataclass(frozen=True)
class NamedStructure:
    """A structure that becomes one row, with the names that it is found by."""

    name: str
    stem: str
    source: str
    structure: Structure


def to_table(rows: Sequence[NamedStructure]) -> pa.Table:
    """Rows as an Arrow table of `SCHEMA`."""
    structures = [row.structure for row in rows]
    resolutions = [structure.resolution for structure in structures]
    columns: dict[str, pa.Array] = {
        "name": pa.array([row.name for row in rows], pa.string()),
        "stem": pa.array([row.stem for row in rows], pa.string()),
        "source": pa.array([row.source for row in rows], pa.string()),
        "length": pa.array([len(structure) for structure in structures], pa.int32()),
        "chain_ids": pa.array([list(structure.chain_ids) for structure in structures], pa.list_(pa.string())),
        "insertion_code": pa.array(["".join(structure.insertion_code) for structure in structures], pa.string()),
        "resolution": pa.array(resolutions, pa.float32()),
        "method": pa.array([structure.method for structure in structures], pa.string()),
    }
    packed = [_pack(structure) for structure in structures]
    for name, dtype in LIST_COLUMNS.items():
        parts = [part[name] for part in packed]
        offsets = np.cumsum([0, *map(len, parts)]).astype(np.int32)
        values = np.concatenate([np.empty(0, dtype), *parts]).astype(dtype, copy=False)
        columns[name] = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
    return pa.table([columns[field.name].cast(field.type) for field in SCHEMA], schema=SCHEMA)


def _pack(structure: Structure) -> dict[str, np.ndarray]:
    mask = structure.atom_mask
    side_mask = mask[:, BACKBONE_ATOM_COUNT:]
    atoms = np.maximum(mask.sum(axis=1), 1)
    return {
        "chain_index": structure.chain_index,
        "residue_type": structure.residue_type,
        "position": structure.position,
        "residue_number": structure.residue_number,
        "atom_mask": (mask * ATOM_BITS).sum(axis=1, dtype=np.uint16),
        "backbone": np.where(mask[..., None], structure.coordinates, 0)[:, :BACKBONE_ATOM_COUNT].reshape(-1),
        "sidechain": structure.coordinates[:, BACKBONE_ATOM_COUNT:][side_mask].reshape(-1),
        "b_factor": (np.where(mask, structure.b_factor, 0).sum(axis=1) / atoms).astype(np.float32),
    }


class _Chunk:
    """NumPy views of one record batch."""

    def __init__(self, table: pa.Table, number: int):
        self.lists: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for name in LIST_COLUMNS:
            column = table.column(name).chunk(number)
            self.lists[name] = (column.offsets.to_numpy(), column.values.to_numpy(zero_copy_only=True))

    def column(self, name: str, row: int) -> np.ndarray:
        offsets, values = self.lists[name]
        return values[offsets[row] : offsets[row + 1]]


class RowReader:
    """Random access to the rows of a table of `SCHEMA`.

    Parameters
    ----------
    table : memory-mapped
    """

    def __init__(self, table: pa.Table):
        self._table = table
        sizes = [len(chunk) for chunk in table.column("length").chunks]
        self._starts = np.cumsum([0, *sizes])
        self._chunks = [_Chunk(table, number) for number in range(len(sizes))]

    def text(self, name: str) -> list[Any]:
        """A column of texts or numbers."""
        return self._table.column(name).to_pylist()

    def arrays(self, row: int) -> dict[str, np.ndarray]:
        """Arrays of one row, read-only views wherever the column is stored as it is used.

        Returns
        -------
        backbone (L, 4, 3) float32, angstrom, 0 where absent · atom_mask (L, 14) bool · residue_type (L,) int8 ·
        chain_index (L,) int16 · position (L,) int32 · residue_number (L,) int32 · b_factor (L,) float32 ·
        sidechain (atoms, 3) float32, the present heavy atoms beyond O, residue by residue
        """
        number, local = self._locate(row)
        chunk = self._chunks[number]
        arrays = {name: chunk.column(name, local) for name in LIST_COLUMNS}
        arrays["backbone"] = arrays["backbone"].reshape(-1, BACKBONE_ATOM_COUNT, 3)
        arrays["sidechain"] = arrays["sidechain"].reshape(-1, 3)
        arrays["atom_mask"] = (arrays["atom_mask"][:, None] & ATOM_BITS) != 0
        return arrays

    def residue_type(self, row: int) -> np.ndarray:
        """(L,) int8 of one row."""
        number, local = self._locate(row)
        return self._chunks[number].column("residue_type", local)

    def structure(self, row: int, name: str) -> Structure:
        """One row as a `Structure` called `name`.

        Every present atom gets the mean B-factor of its residue and occupancy 1, which are not stored per atom.
        """
        number, local = self._locate(row)
        arrays = self.arrays(row)
        mask = arrays["atom_mask"]
        coordinates = np.zeros((*mask.shape, 3), np.float32)
        coordinates[:, :BACKBONE_ATOM_COUNT] = arrays["backbone"]
        side_rows, side_atoms = np.nonzero(mask[:, BACKBONE_ATOM_COUNT:])
        coordinates[side_rows, side_atoms + BACKBONE_ATOM_COUNT] = arrays["sidechain"]

        def scalar(column: str) -> Any:
            return self._table.column(column).chunk(number)[local].as_py()

        resolution = scalar("resolution")
        return Structure(
            name=name,
            residue_type=arrays["residue_type"].copy(),
            coordinates=coordinates,
            atom_mask=mask,
            b_factor=np.where(mask, arrays["b_factor"][:, None], np.float32(0)),
            occupancy=mask.astype(np.float32),
            chain_index=arrays["chain_index"].copy(),
            chain_ids=tuple(scalar("chain_ids")),
            residue_number=arrays["residue_number"].copy(),
            insertion_code=np.array(list(scalar("insertion_code")), dtype="U1"),
            position=arrays["position"].copy(),
            resolution=None if resolution is None else round(resolution, RESOLUTION_DECIMALS),
            method=scalar("method"),
        )

    def _locate(self, row: int) -> tuple[int, int]:
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        return number, row - int(self._starts[number])


def units_of(structure: Structure, stem: str, source: str, unit: str) -> Iterator[NamedStructure]:
    """Cut what was read from one file into rows: one per chain, in file order, or all of it as one complex."""
    if unit == "complex":
        yield NamedStructure(stem, stem, source, replace(structure, name=stem))
        return
    for chain in structure.chains():
        name = f"{stem}.{chain.chain_ids[0]}"
        yield NamedStructure(name, stem, source, replace(chain, name=name))
