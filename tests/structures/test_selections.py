"""Residues by chain, number and insertion code."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protein_model.structures.selections import SelectionError, residue_name, select_rows
from tests.inference.backbones import made_structure, numbered

# Rows 0 to 5 are chain A, 6 and 7 chain b, 8 and 9 chain 1, 10 to 12 chain A2.
EXAMPLE = made_structure(
    {
        "A": [(-1, " "), (1, " "), (2, " "), (2, "A"), (2, "B"), (5, " ")],
        "b": [(10, " "), (11, " ")],
        "1": [(12, " "), (13, " ")],
        "A2": [(1, " "), (2, " "), (30, " ")],
    }
)


@pytest.mark.parametrize(
    ("selection", "rows"),
    [
        ("", []),
        ("b", [6, 7]),
        ("A1", [1]),
        ("A-1", [0]),
        ("A:2B", [4]),
        ("A2A", [3]),
        ("A1-2", [1, 2]),
        ("A1-2B", [1, 2, 3, 4]),
        ("A-1-5", [0, 1, 2, 3, 4, 5]),
        ("A-1-A5", [0, 1, 2, 3, 4, 5]),
        ("A:2-A:5", [2, 3, 4, 5]),
        ("b11, A5 b", [7, 5, 6]),
        ("1:12-13", [8, 9]),
        ("112", [8]),
        ("A230", [12]),
        ("A2:1-2,A2:30", [10, 11, 12]),
    ],
)
def test_selected(selection, rows):
    assert select_rows(EXAMPLE, selection).tolist() == rows


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ("B", "names no chain; the nearest chain is 'b'"),
        ("Z9", "the chains are 'A', 'b', '1', 'A2'"),
        ("A3", "there is no residue 3; the nearest are A2, A2A, A2B"),
        ("A2C", "there is no residue 2C; the nearest are A2, A2A, A2B"),
        ("A1-4", "there is no residue 4; the nearest are A2, A2A, A5"),
        ("A5-1", "runs backwards"),
        ("A1-x", "does not end with a residue number"),
        ("A:1x2", "is no residue"),
        ("A2", "can be read in 2 ways"),
    ],
)
def test_refused(selection, message):
    with pytest.raises(SelectionError, match=message):
        select_rows(EXAMPLE, selection)


@given(st.data())
def test_every_name_selects_its_residue(data):
    chain_ids = data.draw(st.lists(st.text("AaBb12_", min_size=1, max_size=2), min_size=1, max_size=4, unique=True))
    number = st.tuples(st.integers(-20, 20), st.sampled_from(" ABZ"))
    chains = {chain: data.draw(st.lists(number, min_size=1, max_size=6, unique=True)) for chain in chain_ids}
    structure = made_structure(chains)
    for row in range(len(structure)):
        name = residue_name(structure, row)
        try:
            assert select_rows(structure, name).tolist() == [row]
        except SelectionError as error:  # only the short form can be that of another chain's residue too
            assert "2 ways" in str(error) and ":" not in name
            assert select_rows(structure, f"{name[0]}:{name[1:]}").tolist() == [row]


def test_range_follows_the_file():
    structure = made_structure({"H": [*numbered(50, 52), (52, "A"), (52, "B"), (53, " "), (100, " "), (100, "A")]})
    assert select_rows(structure, "H51-100").tolist() == [1, 2, 3, 4, 5, 6]
    assert select_rows(structure, "H51-100A").tolist() == [1, 2, 3, 4, 5, 6, 7]
