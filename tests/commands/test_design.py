"""The command as designers give it: complexes, oligomers, gaps and insertion codes; what it writes; what stops it."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from protein_model.__main__ import main
from protein_model.inference.records import read_designs
from protein_model.structures import Structure, read_structure, sequence_of, write_structure
from tests.commands.two_processes import on_two_processes
from tests.inference.backbones import symmetric_copies
from tests.inference.evaluation_cases import EXAMPLES, example


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "designs.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def run(tiny_model_folder, tmp_path):
    """`run(path, "--option", ...)` designs into `out` and gives the exit status and that folder."""

    def command(path, *options: str, out: str = "out", few: bool = True) -> tuple[int, Path]:
        folder = tmp_path / out
        given = ["--num_sequences", "2", "--num_steps", "4"] if few else []
        paths = ["--model", str(tiny_model_folder), "--pdb_path", str(path), "--out_dir", str(folder)]
        return main(["design", *paths, *given, *options]), folder

    return command


@pytest.fixture
def complex_file(tmp_path) -> tuple[Path, Structure]:
    """Two chains, E (64 residues, insertion codes) and I (58), side by side."""
    first, second = example("1orc.pdb.gz"), example("5PTI.cif.gz")
    shift = np.array([0.0, 0.0, 25.0], np.float32)
    moved = np.where(second.atom_mask[..., None], second.coordinates - second.coordinates[:, :1].mean(axis=0), 0)
    centre = first.coordinates[:, 1].mean(axis=0)
    parts = {
        name: np.concatenate([getattr(first, name), getattr(second, name)])
        for name in (
            "residue_type",
            "atom_mask",
            "b_factor",
            "occupancy",
            "residue_number",
            "insertion_code",
            "position",
        )
    }
    structure = replace(
        first,
        name="pair",
        chain_ids=("E", "I"),
        chain_index=np.repeat([0, 1], [len(first), len(second)]).astype(np.int16),
        coordinates=np.concatenate(
            [
                first.coordinates,
                np.where(second.atom_mask[..., None], moved + centre + shift, 0).astype(np.float32),
            ]
        ),
        **parts,
    )
    path = tmp_path / "pair.cif"
    write_structure(structure, path)
    return path, read_structure(path)


def test_a_complex_of_which_one_chain_is_designed(run, complex_file):
    path, structure = complex_file
    status, out = run(path, "--fixed", "I", "--omit", "C")
    assert status == 0
    natives, designs = read_designs(out / "pair.fasta")
    native_e, native_i = natives["sequence"].split("/")
    assert native_e + native_i == sequence_of(structure.residue_type) and natives["chains"] == "E:I"
    assert len(designs) == 2
    for number, record in enumerate(designs, start=1):
        designed_e, designed_i = record.sequence.split("/")
        assert designed_i == native_i and designed_e != native_e and "C" not in designed_e
        assert (record.sample, record.designed, record.steps, record.order) == (number, 64, "4", "margin")
        same = np.mean([a == b for a, b in zip(designed_e, native_e, strict=True)])
        assert record.recovery == pytest.approx(same, abs=1e-4)
    # Seen from the other side: the same chains, told by what is designed.
    _, again = run(path, "--designed", "E", "--omit", "C", out="again")
    assert [one.sequence for one in read_designs(again / "pair.fasta")[1]] == [one.sequence for one in designs]
    # The partner matters to a trained model: without it the same noise gives other sequences.
    _, beside = run(path, "--fixed", "I", "--omit", "C", "--model", "design", out="beside")
    _, alone = run(path, "--excluded", "I", "--omit", "C", "--model", "design", out="alone")
    sequences = [one.sequence.split("/") for one in read_designs(alone / "pair.fasta")[1]]
    assert all(parts[1] == "X" * 58 for parts in sequences)
    together = [one.sequence.split("/")[0] for one in read_designs(beside / "pair.fasta")[1]]
    assert [parts[0] for parts in sequences] != together


def test_a_homo_trimer_with_tied_chains(run, tmp_path):
    trimer = symmetric_copies(example("pdb1ubi.pdb.gz"), "ABC")
    write_structure(trimer, tmp_path / "trimer.pdb")
    constraints = tmp_path / "constraints.json"
    constraints.write_text(
        json.dumps({"trimer": {"homo_oligomer": True, "fixed": "B10-12", "omit_at": {"C20": "ILVF"}}})
    )
    status, out = run(tmp_path / "trimer.pdb", "--constraints", str(constraints), "--write_structures", "pdb")
    assert status == 0
    native = sequence_of(trimer.residue_type[:76])
    records = read_designs(out / "trimer.fasta")[1]
    for record in records:
        first, second, third = record.sequence.split("/")
        assert first == second == third and first[9:12] == native[9:12] and first[19] not in "ILVF"
        assert record.designed == 3 * 73
    designed = read_structure(out / "structures" / "trimer_T0.1_1.pdb")
    assert "/".join(sequence_of(chain.residue_type) for chain in designed.chains()) == records[0].sequence


@pytest.mark.parametrize("name", ["abbench__3WD5_l_u.pdb.gz", "abbench__2VIS_l_u.pdb.gz"])
def test_a_real_homo_trimer(run, shared_data, name):
    """Tumour necrosis factor, and a haemagglutinin with chains A, C and E."""
    path = shared_data / "fullatom" / "files" / name
    structure = read_structure(path)
    status, out = run(path, "--tied", "=".join(structure.chain_ids), "--num_steps", "2")
    assert status == 0
    for record in read_designs(out / f"{structure.name}.fasta")[1]:
        parts = record.sequence.split("/")
        numbers = [chain.residue_number.tolist() for chain in structure.chains()]
        shared = set(numbers[0]).intersection(*numbers[1:])
        assert len(shared) > 140
        letters = [
            {number: letter for number, letter in zip(each, part, strict=True) if number in shared}
            for each, part in zip(numbers, parts, strict=True)
        ]
        assert letters[0] == letters[1] == letters[2]


def test_gaps_and_insertion_codes(run, tmp_path):
    """A loop numbered as antibodies are, a stretch that is missing, and a residue without an atom of the backbone."""
    whole = example("3e8mA.pdb.gz")
    keep = np.ones(len(whole), bool)
    keep[40:47] = False
    number = whole.residue_number.copy()
    code = whole.insertion_code.copy()
    number[20:24], code[20:24] = number[20], [" ", "A", "B", "C"]
    mask = whole.atom_mask.copy()
    mask[60, 3] = False
    coordinates = np.where(mask[..., None], whole.coordinates, np.float32(0))
    cut = replace(whole, residue_number=number, insertion_code=code, atom_mask=mask, coordinates=coordinates).take(keep)
    write_structure(cut, tmp_path / "loop.pdb")
    structure = read_structure(tmp_path / "loop.pdb")
    assert (np.diff(structure.position) > 1).sum() == 1 and not structure.backbone_complete.all()
    first = number[20]
    fixed = f"A{first}A-{first}C,A{number[50]}"
    status, out = run(tmp_path / "loop.pdb", "--fixed", fixed, "--write_structures", "cif", "--plot")
    assert status == 0
    native = sequence_of(structure.residue_type)
    for record in read_designs(out / "loop.fasta")[1]:
        assert len(record.sequence) == len(native) == len(whole) - 7
        assert record.sequence[21:24] == native[21:24] and record.sequence[43] == native[43]
        assert record.sequence[53] == "X" and record.sequence.count("X") == 1
        assert record.designed == len(native) - 5
    written = read_structure(out / "structures" / "loop_T0.1_2.cif")
    assert sequence_of(written.residue_type) == record.sequence
    for name in ("residue_number", "insertion_code", "position", "chain_index"):
        np.testing.assert_array_equal(getattr(written, name), getattr(structure, name))
    np.testing.assert_array_equal(written.coordinates[:, :4], structure.coordinates[:, :4])
    confidence = written.b_factor[:, 1]
    assert (confidence[21:24] == 100).all() and confidence[53] == 0 and 0 < confidence[:20].min() < 100
    assert not written.atom_mask[:, 4:].any()
    assert (out / "pictures" / "loop_T0.1.png").read_bytes().startswith(b"\x89PNG")


def test_wrong_names_stop_with_the_nearest(run, complex_file, capsys):
    status, out = run(complex_file[0], "--fixed", "I1-99")
    assert status == 1
    [row] = rows_of(out)
    assert "there is no residue 99; the nearest are I56, I57, I58" in row["error"]
    assert "nearest are I56" in capsys.readouterr().err


def test_a_bad_file_does_not_stop_a_folder(run, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(EXAMPLES / "1orc.pdb.gz", folder)
    shutil.copy(EXAMPLES / "pdb1ubi.pdb.gz", folder)
    (folder / "broken.pdb").write_text("no structure\n")
    (folder / "cut.cif.gz").write_bytes((EXAMPLES / "5PTI.cif.gz").read_bytes()[:3000])
    status, out = run(folder, "--temperature", "0.1", "0.5")
    assert status == 1
    rows = rows_of(out)
    good = [row for row in rows if not row["error"]]
    assert sorted({row["name"] for row in rows if row["error"]}) == ["broken", "cut"]
    assert len(good) == 2 * 2 * 2 and {row["temperature"] for row in good} == {"0.1", "0.5"}
    document = json.loads((out / "designs.json").read_text())
    assert document["inputs"] == 4 and document["failed"] == 2 and len(document["designs"]) == len(rows)
    records = [record for name in ("1orc", "pdb1ubi") for record in read_designs(out / f"{name}.fasta")[1]]
    assert {(row["name"], row["sample"], row["temperature"], row["sequence"]) for row in good} == {
        (record.name, str(record.sample), f"{record.temperature:g}", record.sequence) for record in records
    }
    printed = capsys.readouterr()
    assert "broken.pdb" in printed.err and "2 of 4 structures designed, 2 not" in printed.out


def test_going_on_and_not_overwriting(run, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("1orc.pdb.gz", "pdb1ubi.pdb.gz", "5PTI.cif.gz"):
        shutil.copy(EXAMPLES / name, folder)
    status, whole = run(folder, out="whole")
    assert status == 0
    _, stopped = run(folder, out="stopped")
    for name in ("pdb1ubi.fasta", "designs.csv", "designs.json"):  # as if stopped before these were written
        (stopped / name).unlink()
    before = {path: path.stat().st_mtime_ns for path in stopped.glob("*.fasta")}
    assert run(folder, out="stopped")[0] == 0
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert files_of(stopped) == files_of(whole)
    for options, message in (
        (["--seed", "1"], "seed was 0, is 1"),
        (["--temperature", "0.2"], r"temperatures was [0.1], is [0.2]"),
        (["--plot"], "pictures was False, is True"),
    ):
        assert run(folder, *options, out="stopped")[0] == 2
        assert message in capsys.readouterr().err
    # Other constraints on an input that is finished: named, and the file stays as it is.
    assert run(folder, "--fixed", "A5", out="stopped")[0] == 1
    assert all("with other constraints" in row["error"] for row in rows_of(stopped))
    assert {name: content for name, content in files_of(stopped).items() if name.endswith("fasta")} == {
        name: content for name, content in files_of(whole).items() if name.endswith("fasta")
    }
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "mine.fasta").write_text(">a\nACD\n")
    assert run(folder, out="foreign")[0] == 2


def test_inputs_of_one_name(run, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        shutil.copy(EXAMPLES / "5PTI.cif.gz", tmp_path / "in" / folder)
    shutil.copy(EXAMPLES / "1orc.pdb.gz", tmp_path / "in" / "a")
    status, out = run(tmp_path / "in")
    assert status == 0
    assert {path.name for path in out.glob("*.fasta")} == {"a__5PTI.cif.gz.fasta", "b__5PTI.cif.gz.fasta", "1orc.fasta"}


def test_all_options_and_the_file_of_constraints_say_the_same(run, complex_file, tmp_path):
    path, structure = complex_file
    partial = "K" + "_" * 56 + "A"
    options = [
        *("--fixed", "E5-7"), *("--sequence", f"I={partial}"), *("--tied", "E10=0.5*I10"), *("--tied", "E11-12=I12-13"),
        *("--omit", "CM"), *("--omit_at", "E20-25=P"), *("--bias", "A:-0.5,K:1"), *("--bias_at", "E30=W:9,Y:2.5"),
        *("--temperature_at", "E40-45=0"), *("--excluded", "I20"),
    ]  # fmt: skip
    entries = {
        "fixed": "E5-7", "sequence": {"I": partial}, "tied": ["E10=0.5*I10", "E11-12=I12-13"], "omit": "CM",
        "omit_at": {"E20-25": "P"}, "bias": {"A": -0.5, "K": 1.0}, "bias_at": {"E30": {"W": 9.0, "Y": 2.5}},
        "temperature_at": {"E40-45": 0.0}, "excluded": "I20",
    }  # fmt: skip
    file = tmp_path / "constraints.json"
    file.write_text(json.dumps({"pair": entries}))
    _, first = run(path, *options, out="options")
    _, second = run(path, "--constraints", str(file), out="file")
    assert (first / "pair.fasta").read_bytes() == (second / "pair.fasta").read_bytes()
    # An entry for an input counts more than that for all, and this more than an option.
    file.write_text(json.dumps({"*": {"omit": "A", "bias": {"K": 50.0}}, "pair": {"omit": ""}}))
    _, third = run(path, "--omit", "K", "--constraints", str(file), out="both")
    assert set("".join(record.sequence for record in read_designs(third / "pair.fasta")[1])) == {"K", "/"}
    assert len(structure) == 122


def test_temperature_of_an_input(run, tmp_path):
    file = tmp_path / "constraints.json"
    file.write_text(json.dumps({"5PTI": {"temperature": 0.0}}))
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("1orc.pdb.gz", "5PTI.cif.gz"):
        shutil.copy(EXAMPLES / name, folder)
    _, out = run(folder, "--constraints", str(file), "--temperature", "0.5", "1")
    assert [row["temperature"] for row in rows_of(out) if row["name"] == "5PTI"] == ["0.0", "0.0"]
    assert {row["temperature"] for row in rows_of(out) if row["name"] == "1orc"} == {"0.5", "1.0"}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"omit": "Z"}, "omit: 'Z' is no residue type"),
        ({"omit_at": {"A5": "1"}}, "omit_at A5: '1' is no residue type"),
        ({"bias": {"AC": 1}}, "bias: 'AC' is no residue type"),
        ({"bias_at": {"A5": {"Z": 1}}}, "bias_at A5: 'Z' is no residue type"),
        ({"sequence": {"A": "Z"}}, "sequence A: 'Z' is no residue type"),
        ({"tied": ["A5"]}, "tied: 'A5' does not tie anything"),
    ],
)
def test_a_constraints_file_that_fits_no_structure_is_refused_once(run, tmp_path, capsys, entries, message):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("1orc.pdb.gz", "5PTI.cif.gz"):
        shutil.copy(EXAMPLES / name, folder)
    file = tmp_path / "constraints.json"
    file.write_text(json.dumps({"5PTI": entries}))
    status, out = run(folder, "--constraints", str(file))
    errors = capsys.readouterr().err
    assert status == 2 and f"error: --constraints {file}: '5PTI': {message}" in errors and not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bias", "A=1"], "must be LETTER:VALUE"),
        (["--bias", "A:x"], "'x' is no number"),
        (["--omit_at", "A5"], "must be RESIDUES=VALUE"),
        (["--omit_at", "A5=C", "--omit_at", "A5=D"], "the same residues are there twice"),
        (["--num_steps", "many"], "must be a number of at least 1, or L"),
        (["--temperature", "-1"], "error: --temperature must be a number of at least 0, but is -1.0"),
        (["--temperature", "0.1", "0.1"], "one is there twice"),
        (["--num_sequences", "0"], "error: --num_sequences must be at least 1, but is 0"),
        (["--num_steps", "0"], "error: --num_steps must be at least 1, or L for one residue at a time, but is 0"),
        (["--remask", "1.5"], "error: --remask must be a share of the residues from 0 to 1, but is 1.5"),
        (["--omit", "CZ"], "error: --omit: 'Z' is no residue type; the types are ACDEFGHIKLMNPQRSTVWY"),
        (["--omit", "ACDEFGHIKLMNPQRSTVWY"], "error: --omit: leaves no residue type to choose"),
        (["--omit_at", "A5=CZ"], "error: --omit_at A5: 'Z' is no residue type"),
        (["--bias", "Z:1"], "error: --bias: 'Z' is no residue type"),
        (["--bias", "A:nan"], "error: --bias: 'nan' is no number"),
        (["--bias_at", "A5=Z:1"], "error: --bias_at A5: 'Z' is no residue type"),
        (["--temperature_at", "A5=-1"], "error: --temperature_at A5: must be at least 0, but is -1"),
        (["--sequence", "A=M_1"], "error: --sequence A: '1' is no residue type"),
        (["--tied", "A5"], "error: --tied: 'A5' does not tie anything"),
        (["--tied", "A5=x*A6"], "error: --tied: 'A5=x*A6': 'x' is no weight"),
        (["--model", "absent"], "--model absent: is neither a model that this package ships"),
        (["--model", "./absent"], "--model absent: has no config.json"),
        (["--constraints", "absent.json"], "absent.json"),
    ],
)
def test_options_that_are_refused(run, capsys, options, message):
    status, out = run(EXAMPLES / "5PTI.cif.gz", *options)
    assert status == 2 and message in capsys.readouterr().err and not out.exists()


def test_a_listed_file_that_is_not_there_is_named_by_its_line(run, tmp_path, capsys):
    paths = tmp_path / "paths.txt"
    paths.write_text(f"{EXAMPLES / '5PTI.cif.gz'}\nabsent.pdb\n")
    status, out = run(paths)
    told = f"{paths}, line 2: there is no file {tmp_path / 'absent.pdb'}; correct the line or remove it"
    errors = capsys.readouterr().err
    assert status == 1 and f"WARNING: {told}" in errors and "Errno" not in errors
    assert [bool(row["error"]) for row in rows_of(out)] == [False, False, True]
    assert rows_of(out)[-1]["error"].startswith(told)


def test_an_output_that_cannot_be_a_folder_is_refused(run, tmp_path, capsys):
    (tmp_path / "file").touch()
    for out, reason in (("file", "File exists"), ("file/below", "Not a directory")):
        assert run(EXAMPLES / "5PTI.cif.gz", out=out)[0] == 2
        assert f"no folder that results can be written to ({reason})" in capsys.readouterr().err


def test_without_a_native_sequence_there_is_no_recovery(run, tmp_path, capsys):
    known = example("5PTI.cif.gz")
    unknown = replace(known, residue_type=np.full_like(known.residue_type, 20), atom_mask=known.atom_mask.copy())
    unknown.atom_mask[:, 4:] = False
    write_structure(unknown, tmp_path / "unknown.pdb")
    status, out = run(tmp_path / "unknown.pdb")
    printed = capsys.readouterr().out
    assert status == 0 and "no native sequence to compare with" in printed and "nan" not in printed
    assert [row["recovery"] for row in rows_of(out)] == ["", ""]


def test_unknown_name_in_the_file_of_constraints(run, tmp_path, capsys):
    file = tmp_path / "constraints.json"
    file.write_text(json.dumps({"5PTi": {"omit": "C"}}))
    assert run(EXAMPLES / "5PTI.cif.gz", "--constraints", str(file))[0] == 2
    assert "there is no input '5PTi'; the nearest are 5PTI" in capsys.readouterr().err


def test_two_processes_do_what_one_does(run, tiny_model_folder, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("1orc.pdb.gz", "pdb1ubi.pdb.gz", "5PTI.cif.gz", "3pivA.pdb.gz"):
        shutil.copy(EXAMPLES / name, folder)
    (folder / "broken.pdb").write_text("no structure\n")
    assert run(folder, out="one")[0] == 1
    done = on_two_processes(
        *("design", "--model", tiny_model_folder, "--pdb_path", folder, "--out_dir", tmp_path / "two"),
        *("--num_sequences", 2, "--num_steps", 4),
    )
    assert done.returncode == 1 and done.stdout.count("structures designed") == 1, done.stdout + done.stderr
    assert "broken.pdb" in done.stderr
    assert files_of(tmp_path / "two") == files_of(tmp_path / "one")
