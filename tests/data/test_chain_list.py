"""Lists of chains as benchmarks publish them: JSON or one object a line, coordinates by atom or by residue."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protein_model.data.chain_set import read_chain_list
from protein_model.data.errors import CacheError
from protein_model.structures import Structure, sequence_of

ATOMS = ("N", "CA", "C", "O")


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    seed=st.integers(0, 1000),
    by_atom=st.booleans(),
    lines=st.booleans(),
)
def test_what_is_written_is_read(tmp_path_factory, lengths, seed, by_atom, lines):
    generator = np.random.default_rng(seed)
    entries, expected = [], []
    for number, length in enumerate(lengths):
        backbone = generator.normal(scale=20, size=(length, 4, 3)).round(3)
        absent = generator.random((length, 4)) < 0.1
        backbone[absent] = math.nan
        sequence = sequence_of(generator.integers(21, size=length))
        coords = {atom: backbone[:, index].tolist() for index, atom in enumerate(ATOMS)}
        entries.append({"name": f"c{number}", "seq": sequence, "coords": coords if by_atom else backbone.tolist()})
        expected.append((sequence, backbone, ~absent))
    path = tmp_path_factory.mktemp("list") / ("chains.jsonl" if lines else "chains.json")
    path.write_text("\n".join(map(json.dumps, entries)) if lines else json.dumps(entries))
    found = list(read_chain_list(path))
    assert [name for name, _ in found] == [entry["name"] for entry in entries]
    for (_, structure), (sequence, backbone, present) in zip(found, expected, strict=True):
        assert isinstance(structure, Structure)
        assert sequence_of(structure.residue_type) == sequence
        assert np.array_equal(structure.atom_mask[:, :4], present)
        assert np.allclose(structure.coordinates[:, :4], np.nan_to_num(backbone), atol=1e-4)


def test_missing_coordinates_may_be_null(tmp_path):
    path = tmp_path / "list.json"
    coords = [[[0.0, 0.0, 0.0]] * 3 + [[None, None, None]]]
    path.write_text(json.dumps([{"name": "a", "seq": "A", "coords": coords}]))
    [(_, structure)] = read_chain_list(path)
    assert structure.atom_mask[0, :4].tolist() == [True, True, True, False]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"name": "a", "coords": []}, "KeyError: 'seq'"),
        ({"name": "a", "seq": "AC", "coords": [[[0, 0, 0]] * 4]}, "1 coordinates of N for 2 residues"),
        ({"name": "a", "seq": "A1", "coords": [[[0, 0, 0]] * 4] * 2}, "'1' at place 2"),
        ({"name": "a", "seq": "A", "coords": [[[0, 0, 0]] * 3]}, "ValueError"),
        ("not an object", "entry 2, TypeError"),
    ],
)
def test_an_entry_that_cannot_be_used_is_named_and_the_others_are_read(tmp_path, entry, reason):
    good = {"name": "good", "seq": "A", "coords": [[[0, 0, 0]] * 4]}
    path = tmp_path / "list.json"
    path.write_text(json.dumps([good, entry, good]))
    first, (_, problem), last = read_chain_list(path)
    assert isinstance(first[1], Structure) and isinstance(last[1], Structure)
    assert reason in problem and "entry 2" in problem


@pytest.mark.parametrize(("text", "message"), [("{", "not JSON"), ("{}", "must be a list"), ("\udcff", "not JSON")])
def test_other_files_are_refused(tmp_path, text, message):
    path = tmp_path / "list.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CacheError, match=message):
        list(read_chain_list(path))
    with pytest.raises(CacheError, match="cannot be read"):
        list(read_chain_list(tmp_path / "absent.json"))
