"""The command as people give it: native and given sequences, tables, arrays, messages."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest

from protein_model.__main__ import main
from protein_model.inference.design import load_model
from protein_model.inference.scoring import score
from protein_model.structures import read_structure, sequence_of, write_fasta, write_structure
from tests.commands.two_processes import on_two_processes
from tests.inference.backbones import made_structure, numbered
from tests.inference.evaluation_cases import EXAMPLES, example


@pytest.fixture
def run(tiny_model_folder, tmp_path):
    """`run(path, "--option", ...)` scores into `out` and gives the exit status and that folder."""

    def command(path, *options: str, out: str = "out"):
        folder = tmp_path / out
        paths = ["--model", str(tiny_model_folder), "--pdb_path", str(path), "--out_dir", str(folder)]
        return main(["score", *paths, *options]), folder

    return command


def rows_of(path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_native_sequences_of_a_folder(run, tiny_model_folder, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("1orc.pdb.gz", "5PTI.cif.gz"):
        shutil.copy(EXAMPLES / name, folder)
    (folder / "broken.pdb").write_text("no structure\n")
    status, out = run(folder, "--num_draws", "4", "--seed", "2")
    assert status == 1
    rows = {row["name"]: row for row in rows_of(out / "scores.csv")}
    model = load_model(tiny_model_folder)
    for name in ("1orc", "5PTI"):
        expected = score(model, example(f"{name}.pdb.gz" if name == "1orc" else f"{name}.cif.gz"), num_draws=4, seed=2)
        row = rows[name]
        assert float(row["total"]) == expected.total[0] and float(row["score"]) == expected.score[0]
        assert float(row["standard_error"]) == expected.standard_error[0] and row["draws"] == "4"
        residues = rows_of(out / f"{name}_residues.csv")
        assert "".join(entry["residue"] for entry in residues) == row["letters"]
        found = [float(entry["log_probability"]) for entry in residues]
        np.testing.assert_allclose(found, expected.log_probability[0], rtol=1e-4)
    assert "no atoms" in rows["broken"]["error"]
    codes = [entry["number"] + entry["insertion_code"] for entry in rows_of(out / "1orc_residues.csv")]
    assert any(code.endswith("A") for code in codes) and len(set(codes)) == 64
    document = json.loads((out / "scores.json").read_text())
    assert len(document["sequences"]) == 3 and len(document["problems"]) == 1 and document["settings"]["seed"] == 2
    printed = capsys.readouterr()
    assert (
        "2 sequences scored, 1 problem\n" in printed.out and "broken" in printed.err and "nats/residue" in printed.out
    )


def test_given_sequences_and_arrays(run, tmp_path):
    structure = made_structure({"A": numbered(1, 5), "B": numbered(1, 4)}, name="pair")
    write_structure(structure, tmp_path / "pair.pdb")
    write_fasta(tmp_path / "given.fasta", [("pair, sample=1", "ACDEF/GHIK"), ("anything", "LMN-P:QRST"), ("bad", "AC")])
    options = ["--likelihood", "conditional", "--probabilities", "npy", "csv", "--mutations", "csv"]
    status, out = run(tmp_path / "pair.pdb", "--sequences", str(tmp_path / "given.fasta"), "--fixed", "B", *options)
    assert status == 1  # the third sequence does not fit
    rows = rows_of(out / "scores.csv")
    assert [row["letters"] for row in rows] == ["ACDEF/GHIK", "LMNXP/QRST"]
    assert [row["residues"] for row in rows] == ["5", "4"]
    array = np.load(out / "pair_probabilities.npy")
    assert array.shape == (2, 9, 20) and np.isnan(array[:, 5:]).all() and np.isnan(array[1, 3]).all()
    table = rows_of(out / "pair_probabilities.csv")
    assert len(table) == 9
    for row in table:
        values = np.array([float(row[letter]) for letter in "ACDEFGHIKLMNPQRSTVWY"])
        np.testing.assert_allclose(values, array[int(row["sequence"]) - 1, int(row["number"]) - 1], rtol=1e-4)
        assert row["chain"] == "A" and values.sum() == pytest.approx(1, abs=1e-4)
    for row in rows_of(out / "pair_mutations.csv"):
        assert float(row[row["residue"]]) == 0


def test_designs_of_a_folder_are_scored_on_their_structures(run, tiny_model_folder, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("1orc.pdb.gz", "5PTI.cif.gz"):
        shutil.copy(EXAMPLES / name, folder)
    designs = tmp_path / "designs"
    options = ["--model", str(tiny_model_folder), "--pdb_path", str(folder), "--num_sequences", "1", "--num_steps", "1"]
    assert main(["design", *options, "--out_dir", str(designs), "--temperature", "0"]) == 0
    status, out = run(folder, "--sequences", str(designs), "--likelihood", "one_shot")
    assert status == 0
    rows = rows_of(out / "scores.csv")
    assert len(rows) == 4
    design_scores = {row["name"]: float(row["score"]) for row in rows_of(designs / "designs.csv")}
    for native, designed in (rows[:2], rows[2:]):
        assert ", native, " in native["header"] and ", sample=1, " in designed["header"]
        # Chosen all at once, a design's own score is its one-shot score; no sequence has a better one.
        assert float(designed["score"]) == pytest.approx(design_scores[designed["name"]], abs=1e-4)
        assert float(designed["score"]) < float(native["score"])
        assert native["letters"] == sequence_of(read_structure(native["input"]).residue_type)


def test_refused(run, tmp_path, capsys):
    path = EXAMPLES / "5PTI.cif.gz"
    assert run(path, "--likelihood", "one_shot")[0] == 0
    assert run(path)[0] == 2 and "nothing is overwritten" in capsys.readouterr().err
    assert run(path, "--sequences", str(tmp_path / "absent"), out="other")[0] == 2
    assert "no FASTA file found" in capsys.readouterr().err
    status, out = run(path, "--fixed", "A99", out="third")
    assert status == 1 and "the nearest are A56, A57, A58" in rows_of(out / "scores.csv")[0]["error"]
    status, out = run(path, "--num_draws", "0", out="fourth")
    assert status == 2 and "draws must be at least 1, but is 0" in capsys.readouterr().err and not out.exists()
    (tmp_path / "file").touch()
    assert run(path, out="file/below")[0] == 2
    assert "no folder that results can be written to (Not a directory)" in capsys.readouterr().err


def test_two_processes_do_what_one_does(run, tiny_model_folder, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("1orc.pdb.gz", "pdb1ubi.pdb.gz", "5PTI.cif.gz"):
        shutil.copy(EXAMPLES / name, folder)
    (folder / "broken.pdb").write_text("no structure\n")
    assert run(folder, "--num_draws", "2", "--mutations", "csv", out="one")[0] == 1
    done = on_two_processes(
        *("score", "--model", tiny_model_folder, "--pdb_path", folder, "--out_dir", tmp_path / "two"),
        *("--num_draws", 2, "--mutations", "csv"),
    )
    assert done.returncode == 1 and done.stdout.count("sequences scored") == 1, done.stdout + done.stderr
    assert "broken.pdb" in done.stderr
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / out).iterdir()} for out in ("one", "two"))
    assert one == two
