"""Lines of a chain set: what they say of a structure, and what is wrong with those that say nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protein_model.data.chain_set import LINES_PER_BLOCK, parse_lines, read_block, scan_blocks
from protein_model.structures import Structure, sequence_of
from tests.structures.pdb_text import PLACES, STEP

ATOMS = ("N", "CA", "C", "O")


def entry(sequence: str = "ACDEF", name: str = "12as.A", **changes) -> dict:
    """A line of residues in a row, each bonded to the next."""
    coords = {atom: [(np.array(PLACES[atom]) + i * STEP).tolist() for i in range(len(sequence))] for atom in ATOMS}
    return {"seq": sequence, "coords": coords, "num_chains": 1, "name": name, "CATH": ["1.10.8"], **changes}


def parse(*entries: dict | str) -> list[tuple[str, Structure | str]]:
    lines = [each if isinstance(each, str) else json.dumps(each) for each in entries]
    return list(parse_lines("\n".join(lines).encode(), first_line=1))


def test_a_line_is_a_structure():
    [(name, structure)] = parse(entry("MKXU", "3fkf.B"))
    assert name == structure.name == "3fkf.B"
    assert (structure.chain_ids, sequence_of(structure.residue_type)) == (("B",), "MKXC")
    assert structure.atom_mask[:, :4].all()
    assert not structure.atom_mask[:, 4:].any()
    for slot, atom in enumerate(ATOMS):
        expected = np.array([np.array(PLACES[atom]) + i * STEP for i in range(4)])
        np.testing.assert_allclose(structure.coordinates[:, slot], expected, atol=1e-5)
    np.testing.assert_array_equal(structure.position, np.arange(4))
    np.testing.assert_array_equal(structure.residue_number, np.arange(1, 5))


def test_unresolved_residues_are_there_without_coordinates_and_keep_their_place():
    line = entry("ACDEFGHI")
    for atom in ATOMS:
        line["coords"][atom][2] = line["coords"][atom][3] = [float("nan")] * 3
    line["coords"]["O"][6] = [1.0, float("nan"), 2.0]
    [(_, structure)] = parse(line)
    np.testing.assert_array_equal(structure.backbone_complete, [1, 1, 0, 0, 1, 1, 0, 1])
    assert (structure.coordinates[2:4] == 0).all()
    assert sequence_of(structure.residue_type) == "ACDEFGHI"
    np.testing.assert_array_equal(structure.position, np.arange(8))


def test_neighbours_that_are_too_far_apart_are_no_neighbours():
    line = entry("ACDEF")
    for atom in ATOMS:
        for residue in range(3, 5):
            line["coords"][atom][residue][2] += 3.0
    [(_, structure)] = parse(line)
    np.testing.assert_array_equal(structure.position, [0, 1, 2, 4, 5])


@pytest.mark.parametrize(
    ("line", "label", "kind"),
    [
        ('{"name": "a.A", "seq"', "line 1", "line is not JSON"),
        ("[1, 2]", "line 1", "line lacks what a chain set has"),
        ('{"seq": "A"}', "line 1", "line lacks what a chain set has"),
        ('{"name": "a.A", "seq": "A"}', "a.A", "line lacks what a chain set has"),
        (json.dumps(entry(name="a.A", coords=[])), "a.A", "line lacks what a chain set has"),
        (json.dumps(entry("", "a.A")), "a.A", "line lacks what a chain set has"),
        (json.dumps(entry(name=7)), "7", "line lacks what a chain set has"),
        (json.dumps(entry(name="")), "line 1", "line lacks what a chain set has"),
        (json.dumps(entry(name="\ud800.A")), "\\ud800.A", "line lacks what a chain set has"),
        (json.dumps(entry(name="a.A") | {"seq": "ACDE"}), "a.A", "line lacks what a chain set has"),
        (json.dumps(entry(name="a.A") | {"seq": "AC EF"}), "a.A", "line lacks what a chain set has"),
        (json.dumps(entry("A", "a.A")).replace("1.46", f"1{'0' * 400}"), "a.A", "line lacks what a chain set has"),
    ],
)
def test_lines_of_no_use_are_told_by_name_and_number(line, label, kind):
    [(found, reason)] = parse(line)
    assert found == label
    assert isinstance(reason, str)
    assert reason.startswith(f"{kind}: line 1, ")


def test_lines_of_no_use_and_blank_ones_leave_the_others_as_they_are():
    found = parse(entry(name="1abc.A"), "", "?", entry(name="2abc.A"))
    assert [name for name, _ in found] == ["1abc.A", "line 3", "2abc.A"]
    assert [isinstance(structure, Structure) for _, structure in found] == [True, False, True]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*ATOMS, "x"]), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(st.fixed_dictionaries({}, optional={"name": json_values, "seq": json_values, "coords": json_values}))
def test_any_json_is_a_structure_or_has_a_reason(line):
    [(label, found)] = parse(line)
    assert label
    label.encode()
    assert isinstance(found, Structure | str)


@settings(max_examples=20, deadline=None)
@given(
    counts=st.lists(st.integers(0, 3), max_size=2 * LINES_PER_BLOCK + 3), ends=st.booleans(), appended=st.integers(0, 3)
)
def test_blocks_are_whole_lines_in_order_and_do_not_depend_on_what_follows(counts, ends, appended, tmp_path_factory):
    path = tmp_path_factory.mktemp("blocks") / "chain_set.jsonl"
    lines = [b"x" * count + b"\n" for count in counts]
    if lines and not ends:
        lines[-1] = b"last"
    path.write_bytes(b"".join(lines))
    blocks = scan_blocks(path)
    contents = [read_block(path, block.start, block.length) for block in blocks]
    assert b"".join(contents) == path.read_bytes()
    assert all(part.count(b"\n") == LINES_PER_BLOCK for part in contents[:-1])
    with path.open("ab") as handle:
        handle.write(b"more\n" * appended)
    complete = len(lines) // LINES_PER_BLOCK if ends else (len(lines) - 1) // LINES_PER_BLOCK
    assert scan_blocks(path)[:complete] == blocks[:complete]
