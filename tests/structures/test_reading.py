"""Each decision of `reading`, one by one, on small files; real files are in test_reading_oracle.py."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from protein_model.structures import HEAVY_ATOMS, RESIDUE_LETTERS, StructureError, read_structure, sequence_of
from tests.structures.pdb_text import BACKBONE, PLACES, STEP, atom, chain, residue

EXAMPLES = Path(__file__).parents[2] / "protein_model" / "examples"


@pytest.fixture
def read(tmp_path):
    def read_text(text: str | bytes, name: str = "file.pdb"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_structure(path)

    return read_text


def slot(letter: str, name: str) -> int:
    return HEAVY_ATOMS[RESIDUE_LETTERS.index(letter)].index(name)


def numbers(structure) -> list[str]:
    return [
        f"{number}{code.strip()}"
        for number, code in zip(structure.residue_number, structure.insertion_code, strict=True)
    ]


def test_plain_chain(read):
    structure = read(chain(["ALA", "GLY", "TRP"], first=5) + "TER\nEND\n")
    assert sequence_of(structure.residue_type) == "AGW"
    assert numbers(structure) == ["5", "6", "7"]
    assert structure.position.tolist() == [0, 1, 2]
    assert structure.chain_ids == ("A",)
    assert structure.name == "file"
    assert structure.resolution is None and structure.method == ""
    np.testing.assert_allclose(structure.coordinates[1, :4], [np.array(PLACES[n]) + STEP for n in BACKBONE], atol=1e-3)
    assert structure.atom_mask.sum() == 12
    assert (structure.b_factor[structure.atom_mask] == 20).all()
    assert not structure.coordinates[~structure.atom_mask].any()


def test_header(read):
    head = "EXPDTA    SOLUTION NMR\n"
    assert read(head + chain(["ALA"])).method == "SOLUTION NMR"
    head = "EXPDTA    X-RAY DIFFRACTION\nREMARK   2\nREMARK   2 RESOLUTION.    1.70 ANGSTROMS.\n"
    structure = read(head + chain(["ALA"]))
    assert (structure.resolution, structure.method) == (1.7, "X-RAY DIFFRACTION")


class TestModels:
    def test_first_model_counts(self, read):
        second = residue("GLY", 1, 4)
        structure = read(f"MODEL        1\n{chain(['ALA'])}ENDMDL\nMODEL        2\n{second}ENDMDL\n")
        assert sequence_of(structure.residue_type) == "A"

    def test_first_model_without_endmdl(self, read):
        structure = read(f"MODEL        1\n{chain(['ALA'])}MODEL        2\n{residue('GLY', 2, 1)}")
        assert sequence_of(structure.residue_type) == "A"

    def test_model_without_atoms_is_none(self, read):
        structure = read(f"MODEL        1\nENDMDL\nMODEL        2\n{chain(['ALA'])}ENDMDL\n")
        assert sequence_of(structure.residue_type) == "A"

    def test_mmcif(self, tmp_path, read):
        text = mmcif_rows([("ALA", 1, 1)], model=1) + "".join(mmcif_row_lines([("GLY", 1, 1)], model=2))
        assert sequence_of(read(text, "models.cif").residue_type) == "A"


class TestAlternateLocations:
    def test_most_occupied_for_the_whole_residue(self, read):
        text = residue("SER", 1, 0)
        for name in ("CB", "OG"):
            text += atom(name, "SER", altloc="A", occupancy=0.3)
            text += atom(name, "SER", altloc="B", occupancy=0.7, shift=(0, 0, 1))
        structure = read(text)
        assert structure.atom_mask[0, :6].all()
        assert structure.occupancy[0, 4:6].tolist() == pytest.approx([0.7, 0.7])
        assert structure.coordinates[0, 4, 2] == pytest.approx(2.1)

    def test_equals_first_in_alphabet(self, read):
        text = residue("SER", 1, 0)
        for altloc in "BA":
            text += atom("CB", "SER", altloc=altloc, occupancy=0.5, b_factor=ord(altloc))
        assert read(text).b_factor[0, 4] == ord("A")

    def test_never_mixed(self, read):
        # B has more in sum, A alone has the oxygen: the oxygen is not borrowed.
        text = residue("SER", 1, 0, ("N", "C", "O"))
        for name in ("CA", "CB"):
            text += atom(name, "SER", altloc="A", occupancy=0.2) + atom(name, "SER", altloc="B", occupancy=0.8)
        text += atom("OG", "SER", altloc="A", occupancy=0.2)
        structure = read(text)
        assert structure.occupancy[0, [1, 4]].tolist() == pytest.approx([0.8, 0.8])
        assert not structure.atom_mask[0, slot("S", "OG")]

    def test_conformer_listed_after_the_chain(self, read):
        text = residue("SER", 1, 0) + atom("CB", "SER", 1, altloc="A", occupancy=0.4) + residue("GLY", 2, 1)
        structure = read(text + atom("CB", "SER", 1, altloc="B", occupancy=0.6))
        assert numbers(structure) == ["1", "2"]
        assert structure.occupancy[0, 4] == pytest.approx(0.6)

    def test_point_mutation_by_occupancy(self, read):
        text = residue("ALA", 1, 0)
        text += residue("SER", 2, 1, altloc="A", occupancy=0.4) + residue("PRO", 2, 1, altloc="B", occupancy=0.6)
        structure = read(text + residue("GLY", 3, 2))
        assert sequence_of(structure.residue_type) == "APG"
        assert structure.position.tolist() == [0, 1, 2]
        interleaved = "".join(
            atom(name, kind, 2, place=1, altloc=altloc, occupancy=0.5)
            for name in BACKBONE
            for kind, altloc in (("SER", "B"), ("PRO", "A"))
        )
        assert sequence_of(read(residue("ALA", 1, 0) + interleaved).residue_type) == "AP"

    def test_lost_indicators(self, read):
        # Some programs delete the indicators; the first of each atom counts.
        text = residue("SER", 1, 0) + atom("CB", "SER", b_factor=1) + atom("CB", "SER", b_factor=2, shift=(0, 0, 0.5))
        assert read(text).b_factor[0, 4] == 1


class TestNumbering:
    def test_insertion_codes(self, read):
        text = residue("ALA", 52, 0) + residue("GLY", 52, 1, code="A") + residue("SER", 52, 2, code="B")
        structure = read(text + residue("LYS", 53, 3))
        assert numbers(structure) == ["52", "52A", "52B", "53"]
        assert structure.position.tolist() == [0, 1, 2, 3]

    def test_negative_and_not_monotonic(self, read):
        text = residue("ALA", -2, 0) + residue("GLY", -1, 1) + residue("SER", 900, 2) + residue("LYS", 3, 3)
        structure = read(text)
        assert numbers(structure) == ["-2", "-1", "900", "3"]
        assert structure.position.tolist() == [0, 1, 2, 3]  # geometry, not numbers, says what is bonded

    def test_number_used_again_after_ter(self, read):
        text = chain(["ALA", "GLY"]) + "TER\n" + chain(["ALA", "GLY"], shift=(0, 0, 50)) + "TER\n"
        structure = read(text)
        assert sequence_of(structure.residue_type) == "AGAG"
        assert structure.position.tolist() == [0, 1, 3, 4]

    def test_number_used_again_without_ter_is_an_error(self, read):
        with pytest.raises(StructureError, match="residue ALA 1 of chain 'A' is there twice"):
            read(residue("ALA", 1, 0) + residue("ALA", 1, 1))

    def test_chain_in_two_parts(self, read):
        text = residue("ALA", 1, 0) + residue("LYS", 1, 0, chain="B") + residue("GLY", 2, 1)
        structure = read(text)
        assert structure.chain_ids == ("A", "B")
        assert sequence_of(structure.residue_type) == "AGK"
        assert structure.chain_index.tolist() == [0, 0, 1]

    def test_residue_number_that_is_none(self, read):
        with pytest.raises(StructureError, match=r"line 5: residue number '\*\*\*\*' is no number"):
            read(residue("ALA", 1, 0) + residue("ALA", "****", 1))

    def test_hybrid36_residue_number(self, read):
        assert numbers(read(residue("ALA", "A000", 0))) == ["10000"]


class TestMissingAtoms:
    @pytest.mark.parametrize("missing", BACKBONE)
    def test_residue_stays(self, read, missing):
        atoms = [name for name in BACKBONE if name != missing]
        structure = read(residue("ALA", 1, 0) + residue("SER", 2, 1, atoms) + residue("GLY", 3, 2))
        assert sequence_of(structure.residue_type) == "ASG"
        assert structure.backbone_complete.tolist() == [True, False, True]
        assert structure.position.tolist() == [0, 1, 2]

    def test_zero_occupancy_is_kept(self, read):
        structure = read(residue("ALA", 1, 0) + residue("SER", 2, 1, occupancy=0.0))
        assert structure.backbone_complete.all()
        assert (structure.occupancy[1, :4] == 0).all() and (structure.occupancy[0, :4] == 1).all()

    def test_zeros_are_no_coordinates(self, read):
        zeros = "".join(line[:30] + f"{0:8.3f}" * 3 + line[54:] for line in residue("SER", 2, 1).splitlines(True))
        structure = read(residue("ALA", 1, 0) + zeros + residue("GLY", 3, 2))
        assert sequence_of(structure.residue_type) == "AG" and structure.position.tolist() == [0, 2]
        with pytest.raises(StructureError, match="no coordinates: two of N, CA and C lie at one point in each residue"):
            read(zeros)

    def test_calpha_trace_is_refused(self, read):
        text = "".join(residue("ALA", number, number, ("CA",)) for number in range(1, 6))
        with pytest.raises(StructureError, match="CA-only trace"):
            read(text)

    def test_calpha_trace_beside_a_whole_chain(self, read):
        text = "".join(residue("ALA", number, number, ("CA",), chain="B") for number in range(1, 4))
        structure = read(chain(["GLY", "SER"]) + text)
        assert structure.chain_ids == ("A", "B")
        assert structure.backbone_complete.tolist() == [True, True, False, False, False]
        assert structure.position.tolist() == [0, 1, 0, 1, 2]

    def test_no_residue_complete(self, read):
        with pytest.raises(StructureError, match="no residue has a complete backbone"):
            read(residue("ALA", 1, 0, ("N", "CA", "CB")))


class TestResidueTypes:
    @pytest.mark.parametrize(
        ("name", "letter"),
        [
            *(("HIE", "H"), ("HID", "H"), ("HIP", "H"), ("HSD", "H"), ("HSE", "H"), ("HSP", "H"), ("CYX", "C")),
            *(("CYM", "C"), ("GLH", "E"), ("ASH", "D"), ("LYN", "K"), ("MSE", "M"), ("SEP", "S"), ("TPO", "T")),
            *(("PTR", "Y"), ("CSO", "C"), ("KCX", "K"), ("MLY", "K"), ("PCA", "Q"), ("HYP", "P"), ("SEC", "C")),
            *(("PYL", "K"), ("UNK", "X"), ("ASX", "X"), ("GLX", "X")),
        ],
    )
    def test_parents(self, read, name, letter):
        for record in ("ATOM", "HETATM"):
            structure = read(residue("ALA", 1, 0) + residue(name, 2, 1, record=record) + residue("GLY", 3, 2))
            assert sequence_of(structure.residue_type) == f"A{letter}G"

    def test_selenium_takes_the_place_of_sulphur(self, read):
        text = residue("ALA", 1, 0) + residue("MSE", 2, 1, (*BACKBONE, "CB", "CG", "CE"), record="HETATM")
        structure = read(text + atom("SE", "MSE", 2, place=1, record="HETATM", element="SE"))
        assert structure.atom_mask[1, : len(HEAVY_ATOMS[10])].all()
        assert structure.coordinates[1, slot("M", "SD")].any()

    def test_alias_gives_way_to_the_proper_name(self, read):
        text = residue("ALA", 1, 0) + atom("OT1", b_factor=9) + residue("GLY", 2, 1, ("N", "CA", "C"))
        structure = read(text + atom("OT1", "GLY", 2, place=1, b_factor=9) + atom("OT2", "GLY", 2, place=1))
        assert structure.b_factor[:, 3].tolist() == [20, 9]
        assert structure.backbone_complete.all()

    def test_atoms_the_parent_lacks_are_left_out(self, read):
        structure = read(residue("SEP", 1, 0, (*BACKBONE, "CB", "OG", "P", "O1P"), record="ATOM"))
        assert structure.atom_mask[0].nonzero()[0].tolist() == [0, 1, 2, 3, 4, 5]

    def test_unknown_residue_is_x(self, read):
        structure = read(chain(["ALA", "QQQ", "GLY"], atoms=(*BACKBONE, "CB")))
        assert sequence_of(structure.residue_type) == "AXG"
        assert structure.atom_mask[1].sum() == 5

    def test_parent_that_the_file_names(self, read):
        modres = "MODRES 1ABC QQQ A    2  LYS  SOMETHING\n"
        structure = read(modres + chain(["ALA", "QQQ", "GLY"]))
        assert sequence_of(structure.residue_type) == "AKG"

    def test_parent_that_an_mmcif_names(self, read):
        text = (
            "_pdbx_struct_mod_residue.id 1\n_pdbx_struct_mod_residue.label_asym_id A\n"
            "_pdbx_struct_mod_residue.label_seq_id 2\n_pdbx_struct_mod_residue.label_comp_id QQQ\n"
            "_pdbx_struct_mod_residue.auth_asym_id A\n_pdbx_struct_mod_residue.auth_seq_id 2\n"
            "_pdbx_struct_mod_residue.auth_comp_id QQQ\n_pdbx_struct_mod_residue.PDB_ins_code ?\n"
            "_pdbx_struct_mod_residue.parent_comp_id LYS\n_pdbx_struct_mod_residue.details ?\n"
        )
        structure = read(mmcif_rows([("ALA", 1, 1), ("QQQ", 2, 2)]) + "#\n" + text, "mod.cif")
        assert sequence_of(structure.residue_type) == "AK"

    def test_caps_are_no_residues(self, read):
        text = residue("ACE", 0, -1, ("C", "O"), record="HETATM") + chain(["ALA", "GLY"])
        assert sequence_of(read(text + residue("NH2", 3, 2, ("N",), record="HETATM")).residue_type) == "AG"


class TestWhatIsNoProtein:
    def test_hydrogen_deuterium_and_oxt(self, read):
        extra = atom("H") + atom("HA") + atom("1HB") + atom("D", element="D") + atom("OXT")
        structure = read(residue("ALA", 1, 0) + extra)
        assert structure.atom_mask.sum() == 4

    def test_waters_and_ligands(self, read):
        text = chain(["ALA", "GLY"]) + "TER\n"
        text += atom("O", "HOH", 101, record="HETATM", place=9) + atom("CA", "CA", 102, record="HETATM", element="CA")
        text += atom("C1", "HEM", 103, record="HETATM", place=5)
        assert numbers(read(text)) == ["1", "2"]

    @pytest.mark.parametrize("ter", ["", "TER\n"])
    def test_free_amino_acid_is_a_ligand(self, read, ter):
        text = chain(["ALA", "GLY"]) + ter + residue("GLY", 201, 30, record="HETATM")
        assert numbers(read(text)) == ["1", "2"]

    def test_modified_residue_at_an_end(self, read):
        first, last = residue("MSE", 1, 0, record="HETATM"), residue("MSE", 3, 2, record="HETATM")
        for ter in ("", "TER\n"):
            assert sequence_of(read(first + residue("ALA", 2, 1) + last + ter).residue_type) == "MAM"

    def test_modified_residue_alone_between_gaps(self, read):
        lonely = residue("MSE", 30, 30, record="HETATM")
        water = atom("O", "HOH", 99, record="HETATM", place=70)
        assert sequence_of(read(chain(["ALA", "GLY"]) + lonely + residue("SER", 60, 60)).residue_type) == "AGMS"
        assert sequence_of(read(chain(["ALA", "GLY"]) + lonely + "TER\n" + water).residue_type) == "AGM"
        modres = "MODRES 1ABC MSE A   30  MET  SELENOMETHIONINE\n"
        assert sequence_of(read(modres + chain(["ALA", "GLY"]) + lonely).residue_type) == "AGM"

    def test_nucleic_acids(self, read):
        dna = "".join(atom(name, "DA", 1, chain="B") for name in ("P", "O5'", "C5'", "N9", "C8"))
        assert read(chain(["ALA"]) + dna).chain_ids == ("A",)
        with pytest.raises(StructureError, match="no protein residues"):
            read(dna)

    def test_mmcif_ligand_with_an_amino_acid_name(self, read):
        structure = read(mmcif_rows([("ALA", 1, 1), ("GLY", 2, 2), ("GLY", 301, None)]), "ligand.cif")
        assert numbers(structure) == ["1", "2"]


class TestGaps:
    def test_from_geometry_with_author_numbers(self, read):
        structure = read(chain(["ALA", "GLY"]) + residue("SER", 9, 8) + residue("LYS", 10, 9))
        assert structure.position.tolist() == [0, 1, 8, 9]

    def test_consecutive_numbers_far_apart(self, read):
        structure = read(chain(["ALA", "GLY"]) + residue("SER", 3, 20))
        assert structure.position.tolist() == [0, 1, 3]

    def test_numbers_of_a_fused_protein(self, read):
        structure = read(chain(["ALA", "GLY"]) + residue("SER", 5003, 20))
        assert structure.position.tolist() == [0, 1, 3]

    def test_seqres_tells_the_size(self, read):
        seqres = "SEQRES   1 A    7  ALA GLY TRP TRP TRP SER LYS\n"
        text = chain(["ALA", "GLY"]) + residue("SER", 3, 8) + residue("LYS", 4, 9) + "TER\n"
        assert read(seqres + text).position.tolist() == [0, 1, 5, 6]
        assert read(text).position.tolist() == [0, 1, 3, 4]

    def test_seqres_neighbours_far_apart(self, read):
        seqres = "SEQRES   1 A    4  ALA GLY SER LYS\n"
        structure = read(seqres + chain(["ALA", "GLY"]) + residue("SER", 3, 20) + residue("LYS", 4, 21))
        assert structure.position.tolist() == [0, 1, 3, 4]

    def test_seqres_of_another_protein(self, read):
        seqres = "SEQRES   1 A    6  TRP TRP TRP TRP TRP TRP\n"
        structure = read(seqres + chain(["ALA", "GLY"]) + residue("SER", 9, 20) + residue("LYS", 10, 21))
        assert structure.position.tolist() == [0, 1, 8, 9]

    def test_label_numbers(self, read):
        rows = [("ALA", 1, 1), ("GLY", 2, 2), ("SER", 3, 9)]
        assert read(mmcif_rows(rows, gap_before={9}), "gap.cif").position.tolist() == [0, 1, 8]

    def test_label_neighbours_far_apart(self, read):
        rows = [("ALA", 1, 1), ("GLY", 2, 2), ("SER", 3, 3)]
        assert read(mmcif_rows(rows, gap_before={3}), "gap.cif").position.tolist() == [0, 1, 3]

    def test_without_atoms_to_measure(self, read):
        # Only side-chain atoms at both sides: numbers are all there is.
        text = residue("ALA", 1, 0) + residue("SER", 2, 1, ("CB",)) + residue("SER", 5, 2, ("CB",))
        assert read(text).position.tolist() == [0, 1, 4]

    def test_chains_count_by_themselves(self, read):
        structure = read(chain(["ALA", "GLY"], first=7) + chain(["SER", "LYS"], first=2, chain="B"))
        assert structure.position.tolist() == [0, 1, 0, 1]


class TestDamagedFiles:
    @pytest.mark.parametrize("content", [b"", b"\n\n  \n", gzip.compress(b"", mtime=0)])
    def test_empty(self, read, content):
        with pytest.raises(StructureError, match="file is empty"):
            read(content)

    def test_missing(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            read_structure(tmp_path / "absent.pdb")

    @pytest.mark.parametrize("content", [b"hello\nworld\n", b"HEADER    ONLY\nEND\n", bytes(range(256)) * 9])
    def test_something_else(self, read, content):
        with pytest.raises(StructureError, match="no atoms"):
            read(content)

    @pytest.mark.parametrize("share", [0.05, 0.3, 0.7, 0.99])
    @pytest.mark.parametrize("name", ["1orc.pdb.gz", "1FAS.cif.gz"])
    def test_cut_gzip(self, read, name, share):
        content = (EXAMPLES / name).read_bytes()
        with pytest.raises(StructureError, match="cut off"):
            read(content[: int(share * len(content))], name)

    def test_damaged_gzip(self, read):
        content = bytearray((EXAMPLES / "1orc.pdb.gz").read_bytes())
        content[len(content) // 2] ^= 0xFF
        with pytest.raises(StructureError, match="damaged"):
            read(bytes(content))

    @pytest.mark.parametrize("kept", [10, 25, 30, 40, 53, 57, 62])
    def test_pdb_cut_within_a_line(self, read, kept):
        text = chain(["ALA", "GLY", "SER"])
        lines = text.splitlines(keepends=True)
        with pytest.raises(StructureError, match=r"line 9: .*cut off"):
            read("".join(lines[:8]) + lines[8][:kept])

    def test_last_line_without_its_end_is_whole(self, read):
        assert len(read(chain(["ALA", "GLY"]).rstrip("\n"))) == 2

    def test_any_cut_of_an_mmcif_within_the_table(self, read):
        text = gzip.decompress((EXAMPLES / "1FAS.cif.gz").read_bytes())
        start = text.index(b"\nATOM ")
        stop = text.index(b"\n#", start)
        whole = len(read(text, "whole.cif"))
        rng = np.random.default_rng(0)
        for cut in [*rng.integers(start + 1, stop, 40).tolist(), text.rindex(b"\n", 0, stop - 200) + 1]:
            with pytest.raises(StructureError, match=r"cut off|incomplete"):
                read(text[:cut], "cut.cif")
        assert whole == 61

    def test_mmcif_without_atoms(self, read):
        with pytest.raises(StructureError, match="no _atom_site table"):
            read("data_x\n_entry.id x\n", "x.cif")

    @pytest.mark.parametrize(("column", "axis"), [(30, "x"), (38, "y"), (46, "z")])
    @pytest.mark.parametrize("value", ["********", "        ", "  1.2x45", " 1.5-2.5", "     nan"])
    def test_coordinate_that_is_none(self, read, column, axis, value):
        lines = chain(["ALA", "GLY"]).splitlines(keepends=True)
        lines[5] = lines[5][:column] + value + lines[5][column + 8 :]
        with pytest.raises(StructureError, match=f"line 6: {axis} coordinate"):
            read("".join(lines))

    def test_unusual_but_valid_coordinates(self, read):
        line = atom("N")
        for value, number in (("   -1.25", -1.25), ("+2.5    ", 2.5), ("      .5", 0.5), ("   -.125", -0.125)):
            text = line[:30] + value + line[38:] + residue("ALA", 1, 0, ("CA", "C", "O"))
            assert read(text).coordinates[0, 0, 0] == number

    def test_mmcif_coordinate_that_is_none(self, read):
        with pytest.raises(StructureError, match="no number"):
            read(mmcif_rows([("ALA", 1, 1)]).replace("2.400", "2.4x0"), "bad.cif")

    def test_error_names_the_file(self, tmp_path):
        path = tmp_path / "some.pdb"
        path.touch()
        with pytest.raises(ValueError, match=r"some\.pdb: file is empty") as caught:
            read_structure(path)
        assert caught.value.reason == "file is empty"


class TestNamesAndContents:
    @pytest.mark.parametrize("name", ["1A8O.cif.gz", "1orc.pdb.gz"])
    def test_content_decides_not_the_ending(self, tmp_path, name):
        content = gzip.decompress((EXAMPLES / name).read_bytes())
        expected = read_structure(EXAMPLES / name)
        for ending in (".pdb", ".cif", ".pdb.gz", ".ent"):
            path = tmp_path / f"wrong{ending}"
            path.write_bytes(gzip.compress(content) if ending == ".ent" else content)
            np.testing.assert_array_equal(read_structure(path).coordinates, expected.coordinates)

    def test_comments_before_the_data_block(self, read):
        assert len(read("# a comment\n\n" + mmcif_rows([("ALA", 1, 1)]), "comment.cif")) == 1

    def test_header_that_is_not_utf8(self, read):
        head = "HEADER    CAF\xe9\nAUTHOR    M\xdcLLER\nEXPDTA    X-RAY DIFFRACTION\n".encode("latin-1")
        structure = read(head + chain(["ALA", "GLY"]).encode())
        assert sequence_of(structure.residue_type) == "AG"
        assert structure.method == "X-RAY DIFFRACTION"
        odd = chain(["ALA", "GLY"], chain="\xe9")
        assert read(odd.encode("latin-1")).chain_ids == read(odd.encode("utf-8")).chain_ids == ("?",)
        author = "_citation_author.name 'M\xdcLLER'\n".encode("latin-1")
        assert len(read(mmcif_rows([("ALA", 1, 1)]).encode() + b"#\n" + author, "umlaut.cif")) == 1

    def test_byte_order_mark(self, read):
        for text, name in ((chain(["ALA", "GLY"]), "x.pdb"), (mmcif_rows([("ALA", 1, 1), ("GLY", 2, 2)]), "x.cif")):
            assert sequence_of(read("\ufeff" + text, name).residue_type) == "AG"

    def test_windows_line_ends(self, read):
        assert len(read(chain(["ALA", "GLY"]).replace("\n", "\r\n"))) == 2
        assert len(read(mmcif_rows([("ALA", 1, 1)]).replace("\n", "\r\n"), "windows.cif")) == 1

    def test_chain_identifiers(self, read):
        text = mmcif_rows([("ALA", 1, 1)], chain="heavy-chain-1")
        text += "".join(mmcif_row_lines([("GLY", 1, 1)], chain="heavy-chain-2"))
        assert read(text, "long.cif").chain_ids == ("heavy-chain-1", "heavy-chain-2")
        assert read(chain(["ALA"], chain=" ")).chain_ids == ("",)

    @pytest.mark.parametrize("style", ["hybrid36", "stars", "overflow"])
    def test_more_than_99999_atoms(self, read, style):
        count = 25_001  # residues of four atoms
        serials = {"hybrid36": "A0000", "stars": "*****", "overflow": "00000"}
        lines = []
        for index in range(count):
            serial = 4 * index + 1
            chain_id = "ABC"[index // 9999]
            number = index % 9999 + 1
            for step, name in enumerate(BACKBONE):
                shown = serial + step if serial + step <= 99_999 else serials[style]
                lines.append(atom(name, "GLY", number, chain=chain_id, place=number % 100, serial=shown))
        structure = read("".join(lines))
        assert len(structure) == count
        assert structure.backbone_complete.all()
        assert structure.chain_ids == ("A", "B", "C")


def mmcif_row_lines(residues, chain="A", model=1, gap_before=()):
    """Rows (name, author number, label number or None) of an _atom_site table."""
    place = -1
    for name, number, label in residues:
        place += 30 if label in gap_before or label is None else 1
        for each in BACKBONE:
            x, y, z = np.array(PLACES[each]) + place * STEP
            group, label_text = ("HETATM", ".") if label is None else ("ATOM", label)
            yield (
                f"{group} 1 {each[0]} {each} . {name} {chain} 1 {label_text} ? {x:.3f} {y:.3f} {z:.3f} 1.00 20.00 ? "
                f"{number} {name} {chain} {each} {model}\n"
            )


def mmcif_rows(residues, **options):
    columns = (
        "group_PDB id type_symbol label_atom_id label_alt_id label_comp_id label_asym_id label_entity_id label_seq_id "
        "pdbx_PDB_ins_code Cartn_x Cartn_y Cartn_z occupancy B_iso_or_equiv pdbx_formal_charge "
        "auth_seq_id auth_comp_id auth_asym_id auth_atom_id pdbx_PDB_model_num"
    )
    head = "data_test\nloop_\n" + "".join(f"_atom_site.{column}\n" for column in columns.split())
    return head + "".join(mmcif_row_lines(residues, **options))
