"""Headers of designs read back as they were written."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protein_model.inference.records import DesignRecord, native_record, parse_header, read_designs
from protein_model.structures import StructureError, write_fasta
from tests.inference.backbones import made_structure, numbered

NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=">"), min_size=1, max_size=12)
CHAINS = {"A": numbered(1, 3), "B2": numbered(1, 2)}


@given(
    name=NAMES, model=NAMES, sample=st.integers(1, 10**6), score=st.floats(0, 20), recovery=st.floats(0, 1),
    temperature=st.sampled_from([0.0, 0.1, 0.25, 1.5]), steps=st.sampled_from(["1", "8", "L"]),
    seed=st.integers(0, 2**63), remask=st.sampled_from([0.0, 0.1]),
)  # fmt: skip
def test_round_trip(tmp_path_factory, name, model, sample, score, recovery, temperature, steps, seed, remask):
    structure = made_structure(CHAINS, name=name)
    record = DesignRecord(
        name, sample, round(score, 4), round(recovery, 4), 5, temperature, steps, "margin", remask, seed, model,
        ("A", "B2"), "ACD/EX",
    )  # fmt: skip
    path = tmp_path_factory.mktemp("records") / "x.fasta"
    write_fasta(path, [native_record(structure, input="0f"), (record.header, record.sequence)])
    natives, designs = read_designs(path)
    assert designs == [record]
    assert natives["name"] == name and natives["input"] == "0f" and natives["chains"] == "A:B2"


def test_a_recovery_that_there_is_not(tmp_path):
    record = DesignRecord("a", 1, 1.0, float("nan"), 5, 0.1, "8", "margin", 0.0, 0, "m", ("A",), "ACD")
    write_fasta(tmp_path / "a.fasta", [native_record(made_structure({"A": numbered(1, 3)})), (record.header, "ACD")])
    assert math.isnan(read_designs(tmp_path / "a.fasta")[1][0].recovery)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([("a, sample=1", "ACD")], "not that of a native sequence"),
        ([("a, native", "ACD"), ("a, sample=1", "ACD")], "record 2 has no field 'score'"),
        ([("a, native, native", "ACD")], "field 'native' is there twice"),
    ],
)
def test_other_files(tmp_path, records, message):
    write_fasta(tmp_path / "a.fasta", records)
    with pytest.raises(StructureError, match=message):
        read_designs(tmp_path / "a.fasta")


def test_what_a_header_looks_like():
    """The form that the README documents."""
    record = DesignRecord("1abc", 2, 1.23456, 0.5, 60, 0.1, "8", "margin", 0.0, 7, "best_model", ("A", "B"), "AC/DE")
    assert record.header == (
        "1abc, sample=2, score=1.2346, recovery=0.5000, designed=60, temperature=0.1, steps=8, order=margin, remask=0, "
        "seed=7, model=best_model, chains=A:B"
    )
    assert parse_header(record.header)["temperature"] == "0.1"
    types = np.array([0, 1, 2, 3, 4], np.int8)
    structure = made_structure(CHAINS, name="1abc")
    structure.residue_type[:] = types
    assert native_record(structure) == ("1abc, native, chains=A:B2", "ACD/EF")
