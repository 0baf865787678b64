"""A structure that became a row and comes back is the same structure."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from protein_model.data.rows import SCHEMA, NamedStructure, RowReader, to_table, units_of
from protein_model.structures import HEAVY_ATOMS, MAX_HEAVY_ATOMS, Structure
from tests.data.structure_files import assert_same_structure


@st.composite
def structures(draw) -> Structure:
    """Structures of 1 to 4 chains with any atoms missing, numbers and insertion codes as they may come."""
    lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    count = sum(lengths)
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    residue_type = generator.integers(0, 21, count).astype(np.int8)
    allowed = np.array([len(HEAVY_ATOMS[kind]) for kind in residue_type])[:, None] > np.arange(MAX_HEAVY_ATOMS)
    mask = allowed & (generator.random((count, MAX_HEAVY_ATOMS)) < draw(st.sampled_from([0.0, 0.5, 1.0])))
    return Structure(
        name="x",
        residue_type=residue_type,
        coordinates=np.where(mask[..., None], generator.normal(0, 50, (count, MAX_HEAVY_ATOMS, 3)), 0).astype("f4"),
        atom_mask=mask,
        b_factor=np.where(mask, generator.random(mask.shape) * 90, 0).astype("f4"),
        occupancy=mask.astype("f4"),
        chain_index=np.repeat(np.arange(len(lengths)), lengths).astype(np.int16),
        chain_ids=tuple(draw(st.lists(st.text(max_size=4), min_size=len(lengths), max_size=len(lengths), unique=True))),
        residue_number=generator.integers(-(2**31), 2**31, count).astype(np.int32),
        insertion_code=generator.choice(list(" AB"), count),
        position=np.concatenate([np.cumsum(generator.integers(1, 5, length)) for length in lengths]).astype(np.int32),
        resolution=draw(st.none() | st.integers(1, 99_999).map(lambda value: value / 1000)),
        method=draw(st.text(max_size=20)),
    )


def stored(rows: list[NamedStructure], rows_per_chunk: int) -> RowReader:
    """Through an Arrow stream, as in a file, in record batches of some rows each."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA) as writer:
        writer.write_table(to_table(rows), max_chunksize=rows_per_chunk)
    return RowReader(pa.ipc.open_stream(sink.getvalue()).read_all())


@settings(max_examples=30, deadline=None)
@given(st.lists(structures(), min_size=1, max_size=4), st.integers(1, 3))
def test_round_trip(read, rows_per_chunk):
    rows = [NamedStructure(f"n{i}", f"s{i}", f"f/s{i}.pdb", structure) for i, structure in enumerate(read)]
    reader = stored(rows, rows_per_chunk)
    assert reader.text("name") == [row.name for row in rows]
    assert reader.text("length") == [len(structure) for structure in read]
    for number, structure in enumerate(read):
        assert_same_structure(reader.structure(number, "x"), structure)
        arrays = reader.arrays(number)
        np.testing.assert_array_equal(arrays["backbone"], structure.coordinates[:, :4])
        np.testing.assert_array_equal(arrays["sidechain"], structure.coordinates[:, 4:][structure.atom_mask[:, 4:]])
        np.testing.assert_array_equal(arrays["atom_mask"], structure.atom_mask)
        np.testing.assert_array_equal(reader.residue_type(number), structure.residue_type)


def test_arrays_are_views_that_cannot_be_written(example_structures):
    rows = [NamedStructure(each.name, each.name, each.name, each) for each in example_structures[:3]]
    arrays = stored(rows, 2).arrays(2)
    for name in ("backbone", "residue_type", "position", "chain_index", "sidechain"):
        assert not arrays[name].flags.owndata
        assert not arrays[name].flags.writeable


@settings(max_examples=30, deadline=None)
@given(structures())
def test_chains_of_a_complex_are_the_rows_of_unit_chain(structure):
    [whole] = units_of(structure, "stem", "f/stem.cif", "complex")
    chains = list(units_of(structure, "stem", "f/stem.cif", "chain"))
    assert (whole.name, whole.structure.name, len(whole.structure)) == ("stem", "stem", len(structure))
    assert [row.name for row in chains] == [f"stem.{chain_id}" for chain_id in structure.chain_ids]
    assert all(row.structure.chain_ids == (structure.chain_ids[i],) for i, row in enumerate(chains))
    assert all((row.structure.chain_index == 0).all() for row in chains)
    for field in ("residue_type", "coordinates", "atom_mask", "position", "residue_number"):
        joined = np.concatenate([getattr(row.structure, field) for row in chains])
        np.testing.assert_array_equal(joined, getattr(structure, field))
