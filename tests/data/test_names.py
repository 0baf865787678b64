"""Names in split and cluster files find the structures that they mean, and no others."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protein_model.data.names import NameIndex, first_few, pdb_identifier


@dataclass
class Rows:
    """Names of a cache."""

    names: list[str]
    stems: list[str]
    chain_ids: list[list[str]]

    def __len__(self) -> int:
        return len(self.names)


def by_chain(*files: tuple[str, str]) -> Rows:
    """Rows of unit chain: (stem, chains) of each file."""
    pairs = [(stem, chain) for stem, chains in files for chain in chains]
    return Rows([f"{s}.{c}" for s, c in pairs], [s for s, _ in pairs], [[c] for _, c in pairs])


@pytest.mark.parametrize(
    ("name", "identifier"),
    [
        ("12as.A", ("12as", "A")),
        ("12AS_A", ("12as", "A")),
        ("12asA", ("12as", "A")),
        ("12as:A", ("12as", "A")),
        ("pdb12as", ("12as", "")),
        ("pdb_000012as.AA", ("12as", "AA")),
        ("12as", ("12as", "")),
        ("model_1", None),
        ("T1024", None),
    ],
)
def test_usual_forms_of_pdb_names(name, identifier):
    assert pdb_identifier(name) == identifier


@pytest.mark.parametrize("stem", ["12as", "12AS", "pdb12as", "pdb_000012as"])
@pytest.mark.parametrize("name", ["12as.B", "12AS_B", "12asB", "pdb12as.B", "12AS-B"])
def test_a_chain_is_found_in_the_file_of_its_entry(stem, name):
    assert NameIndex(by_chain(("other", "AB"), (stem, "ABb"))).find(name) == {3}


@pytest.mark.parametrize("stem", ["12as.B", "12asB", "12AS_B"])
def test_a_chain_is_found_in_a_file_of_its_own_whatever_it_is_called_inside(stem):
    index = NameIndex(by_chain((stem, "A"), ("12as.A", "A")))
    assert index.find("12as.B") == {0}


def test_chain_identifiers_differ_by_case():
    index = NameIndex(by_chain(("1abc", "Aa")))
    assert (index.find("1abc.A"), index.find("1ABC_a"), index.find("1abc.b")) == ({0}, {1}, set())


def test_a_name_without_chain_means_all_chains():
    index = NameIndex(by_chain(("1abc", "AB"), ("pdb2xyz", "A")))
    assert (index.find("1abc"), index.find("2XYZ"), index.find("3xyz")) == ({0, 1}, {2}, set())


def test_names_that_are_not_of_the_pdb():
    index = NameIndex(by_chain(("AF-P12345-F1-model_v4", "A"), ("design", "AB")))
    assert index.find("AF-P12345-F1-model_v4") == {0}
    assert index.find("AF-P12345-F1-model_v4.A") == index.find("AF-P12345-F1-model_v4_A") == {0}
    assert index.find("design_B") == {2}


def test_the_exact_name_wins():
    index = NameIndex(Rows(["1abc.A", "x/1abcA.A"], ["1abc", "1abcA"], [["A"], ["A"]]))
    assert index.find("1abc.A") == {0}
    index = NameIndex(by_chain(("model", "A"), ("model_A", "A")))
    assert index.find("model_A") == {1}


def test_complexes_are_found_by_file_and_by_chain():
    index = NameIndex(Rows(["1abc", "2abc"], ["1abc", "2abc"], [["A", "B"], ["A"]]))
    assert index.find("1abc") == index.find("1abc.B") == index.find("1ABC_A") == {0}


@given(
    st.lists(st.tuples(st.sampled_from(["1abc", "2abc", "pdb1abc", "m", "m_A"]), st.sampled_from("ABa")), max_size=6)
)
def test_every_structure_is_found_by_its_own_name(pairs):
    rows = by_chain(*pairs)
    index = NameIndex(rows)
    found, absent = index.find_all(rows.names)
    assert absent == []
    assert all(row in found[name] for row, name in enumerate(rows.names))


def test_names_of_no_structure_are_told():
    found, absent = NameIndex(by_chain(("1abc", "A"))).find_all(["1abc.A", "1abc.Z", "9zzz.A"])
    assert found == {"1abc.A": {0}}
    assert absent == ["1abc.Z", "9zzz.A"]


def test_first_few():
    assert first_few(["b", "a"]) == "a, b"
    assert first_few(str(number) for number in range(9)) == "0, 1, 2, 3, 4, ..."
