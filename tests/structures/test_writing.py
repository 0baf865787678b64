"""What is written reads back as it was."""

from __future__ import annotations

import gzip
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from Bio.PDB.MMCIFParser import MMCIFParser
from Bio.PDB.PDBParser import PDBParser
from hypothesis import given
from hypothesis import strategies as st

from protein_model.structures import (
    STRUCTURE_ENDINGS,
    Structure,
    StructureError,
    read_fasta,
    read_structure,
    write_fasta,
    write_structure,
)
from tests.structures.pdb_text import chain, residue

EXAMPLES = sorted((Path(__file__).parents[2] / "protein_model" / "examples").glob("*.gz"))


def assert_equal(first: Structure, second: Structure, but: tuple[str, ...] = ("name",)) -> None:
    for field in fields(Structure):
        if field.name not in but:
            a, b = getattr(first, field.name), getattr(second, field.name)
            if isinstance(a, np.ndarray):
                np.testing.assert_array_equal(a, b, err_msg=field.name)
                assert a.dtype == b.dtype, field.name
            else:
                assert a == b, field.name


@pytest.mark.parametrize("ending", [".pdb", ".cif"])
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples(tmp_path, path, ending):
    structure = read_structure(path)
    write_structure(structure, tmp_path / f"copy{ending}")
    assert_equal(read_structure(tmp_path / f"copy{ending}"), structure)


@pytest.mark.parametrize("ending", STRUCTURE_ENDINGS)
def test_endings(tmp_path, ending):
    structure = read_structure(EXAMPLES[0])
    path = tmp_path / f"copy{ending}"
    write_structure(structure, path)
    assert_equal(read_structure(path), structure)
    content = path.read_bytes()
    assert content.startswith(b"\x1f\x8b") == ending.endswith(".gz")
    text = gzip.decompress(content) if ending.endswith(".gz") else content
    assert text.startswith(b"data_") == ("cif" in ending)
    write_structure(structure, path)
    assert path.read_bytes() == content


@pytest.fixture
def manifold(tmp_path):
    """Chains, gaps, insertion codes, negative numbers, missing atoms, an unknown residue, occupancy 0."""
    text = chain(["ALA", "TRP", "MSE"], first=-1) + residue("GLY", 40, 40) + residue("SER", 40, 41, code="A")
    text += residue("QQQ", 2, 42) + residue("LYS", 90, 43, ("N", "CA", "CB"), occupancy=0.0) + "TER\n"
    text += chain(["ASP", "GLU"], chain="b", shift=(0, 0, 20)) + "TER\n"
    path = tmp_path / "manifold.pdb"
    path.write_text(text)
    structure = read_structure(path)
    assert structure.position.tolist() == [0, 1, 2, 41, 42, 43, 44, 0, 1]
    return replace(structure, resolution=2.5, method="X-RAY DIFFRACTION; NEUTRON DIFFRACTION")


@pytest.mark.parametrize("ending", [".pdb", ".cif"])
def test_all_kinds_of_residues(tmp_path, manifold, ending):
    write_structure(manifold, tmp_path / f"copy{ending}")
    assert_equal(read_structure(tmp_path / f"copy{ending}"), manifold)


def test_biopython_reads_it_too(tmp_path, manifold):
    write_structure(manifold, tmp_path / "copy.pdb")
    write_structure(manifold, tmp_path / "copy.cif")
    for parser, name in ((PDBParser(QUIET=True), "copy.pdb"), (MMCIFParser(QUIET=True), "copy.cif")):
        residues = list(parser.get_structure("copy", tmp_path / name).get_residues())
        assert [(r.parent.id, *r.id) for r in residues][3:6] == [
            ("A", " ", 40, " "),
            ("A", " ", 40, "A"),
            ("A", " ", 2, " "),
        ]
        assert sum(len(list(r.get_atoms())) for r in residues) == manifold.atom_mask.sum()


def test_mmcif_keeps_the_size_of_gaps(tmp_path, manifold):
    # As with a size known from SEQRES that the author numbers do not tell.
    changed = manifold.position + np.where(manifold.chain_index == 0, 5, 0) * (manifold.position > 2)
    structure = replace(manifold, position=changed.astype(np.int32))
    write_structure(structure, tmp_path / "copy.cif")
    assert_equal(read_structure(tmp_path / "copy.cif"), structure)
    write_structure(structure, tmp_path / "copy.pdb")
    assert_equal(read_structure(tmp_path / "copy.pdb"), manifold)


def test_long_chain_identifiers(tmp_path, manifold):
    structure = replace(manifold, chain_ids=("heavy-chain", "L'1"))
    write_structure(structure, tmp_path / "copy.cif")
    assert_equal(read_structure(tmp_path / "copy.cif"), structure)
    with pytest.raises(StructureError, match=r"chain identifier 'heavy-chain' has more .* write \.cif"):
        write_structure(structure, tmp_path / "copy.pdb")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("residue_number", 12_345, "residue number 12345"),
        ("coordinates", 12_345.0, "coordinate 12345"),
        ("b_factor", 1_000.0, "B-factor 1000"),
    ],
)
def test_what_pdb_cannot_hold(tmp_path, manifold, name, value, message):
    changed = getattr(manifold, name).copy()
    changed[(0,) * changed.ndim] = value
    structure = replace(manifold, **{name: changed})
    with pytest.raises(StructureError, match=message):
        write_structure(structure, tmp_path / "copy.pdb")
    write_structure(structure, tmp_path / "copy.cif")
    written = read_structure(tmp_path / "copy.cif")
    mask = structure.atom_mask if changed.ndim > 1 else slice(None)
    np.testing.assert_array_equal(getattr(written, name)[mask], changed[mask])


def test_refused(tmp_path, manifold):
    with pytest.raises(StructureError, match="unknown ending"):
        write_structure(manifold, tmp_path / "copy.xyz")
    with pytest.raises(StructureError, match="there are no residues"):
        write_structure(manifold.take(np.zeros(len(manifold), bool)), tmp_path / "copy.pdb")
    mask = manifold.atom_mask.copy()
    mask[3] = False
    with pytest.raises(StructureError, match="residue 40 of chain 'A' has no atoms"):
        write_structure(replace(manifold, atom_mask=mask), tmp_path / "copy.pdb")
    coordinates = manifold.coordinates.copy()
    coordinates[2, 1, 0] = np.nan
    with pytest.raises(StructureError, match="not finite"):
        write_structure(replace(manifold, coordinates=coordinates), tmp_path / "copy.cif")
    assert not list(tmp_path.glob("copy*"))


printable = st.characters(codec="utf-8").filter(str.isprintable)
headers = st.text(printable, max_size=40).filter(lambda text: text == text.strip())
sequences = st.text(st.sampled_from("ACDEFGHIKLMNPQRSTVWYX/-*"), min_size=1, max_size=200)


@given(st.lists(st.tuples(headers, sequences), min_size=1, max_size=5), st.booleans())
def test_fasta_round_trip(tmp_path_factory, records, compressed):
    path = tmp_path_factory.mktemp("fasta") / ("x.fasta.gz" if compressed else "x.fasta")
    write_fasta(path, records)
    assert read_fasta(path) == records
    if not compressed:
        assert max(map(len, path.read_text(encoding="utf-8").split("\n")[1:2])) <= 60


@pytest.mark.parametrize(
    ("header", "sequence"), [("a\nb", "ACD"), (" a", "ACD"), ("a", ""), ("a", "AC D"), ("a", "AC\nD"), ("a", ">A")]
)
def test_fasta_that_would_not_read_back(tmp_path, header, sequence):
    with pytest.raises(StructureError):
        write_fasta(tmp_path / "x.fasta", [(header, sequence)])


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "empty"), ("ACDEF\n", "does not begin with '>'"), (">a\nACD\n>b\n", "'b' has no sequence")],
)
def test_fasta_that_is_none(tmp_path, text, message):
    (tmp_path / "x.fasta").write_text(text)
    with pytest.raises(StructureError, match=message):
        read_fasta(tmp_path / "x.fasta")
