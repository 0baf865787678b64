"""The command as people give it: inputs of all kinds, files that it writes, exit status, messages."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
from accelerate.state import AcceleratorState, GradientState

from protein_model.__main__ import main
from protein_model.data.cache import build_cache
from protein_model.structures import read_structure, sequence_of, write_fasta
from protein_model.training.arguments import GivenOptions
from protein_model.training.trainer import Trainer
from tests.commands.two_processes import on_two_processes
from tests.inference.evaluation_cases import EXAMPLES, tiny_model

FEW = ["--num_sequences", "2", "--num_steps", "3", "--num_orders", "3"]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_model().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def structures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("structures")
    for name in ("1orc.pdb.gz", "pdb1ubi.pdb.gz", "5PTI.cif.gz"):
        shutil.copy(EXAMPLES / name, folder)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished training run of one epoch, and where its data are."""
    folder = tmp_path_factory.mktemp("run")
    data = folder / "data"
    data.mkdir()
    for path in sorted(EXAMPLES.glob("*.gz"), key=lambda path: path.stat().st_size)[:10]:
        shutil.copy(path, data)
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    options = {
        "pdb_path": str(data),
        "cache_dir": str(folder / "cache"),
        "save_dir": str(folder / "save"),
        "hidden_dim": 16,
        "num_encoder_layers": 1,
        "num_decoder_layers": 1,
        "num_neighbors": 8,
        "use_discrete_diffusion": True,
        "epochs": 1,
        "batch_residues": 400,
        "validation_fraction": 0.25,
        "num_example_designs": 0,
    }
    trainer = Trainer(GivenOptions(options))
    trainer.fit()
    return folder, trainer.data


def evaluate(capsys, *options) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main(["evaluate", *map(str, options)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def document(folder):
    return json.loads((folder / "evaluation.json").read_text(), parse_constant=pytest.fail)


def names(folder):
    return [entry["name"] for entry in document(folder)["structures"]]


@pytest.fixture(scope="module")
def of_the_files(model_folder, structures, tmp_path_factory):
    """The output of an evaluation on the structure files."""
    out = tmp_path_factory.mktemp("files") / "new" / "out"
    options = ["--model", model_folder, "--pdb_path", structures, "--out_dir", out, "--steps", "1,2"]
    options += ["--orders", "random,confidence", *FEW]
    assert main(["evaluate", *map(str, options)]) == 0
    return out


def test_a_folder_of_structures(of_the_files):
    written = document(of_the_files)
    assert names(of_the_files) == ["1orc", "5PTI", "pdb1ubi"]
    assert {path.name for path in of_the_files.iterdir()} == {
        *("evaluation.json", "recovery.png", "confusion.png", "calibration.png", "mask_rate.png", "steps.png")
    }
    summary = written["summary"]
    rows = written["structures"]
    assert summary["residues"] == sum(row["residues"] for row in rows)
    total = sum(row["one_shot_nll"] for row in rows)
    assert summary["one_shot_perplexity"]["value"] == pytest.approx(math.exp(total / summary["residues"]))
    assert summary["sampled_recovery"]["median"]["value"] == np.median([row["sampled_recovery"] for row in rows])
    ways = [("random", 1), ("random", 2), ("confidence", 1), ("confidence", 2)]
    assert [(row["order"], row["steps"]) for row in written["steps"]] == ways
    expected = {"num_sequences": 2, "seed": 0, "num_steps": 3, "num_orders": 3, "order": "margin", "temperature": 0.1}
    assert expected.items() <= written["settings"].items()
    assert written["unusable"] == []


def test_same_options_same_figures_on_the_screen_as_in_the_file(capsys, model_folder, structures, of_the_files):
    status, printed, shown = evaluate(capsys, "--model", model_folder, "--pdb_path", structures, *FEW)
    assert status == 0
    summary = document(of_the_files)["summary"]
    for name in ("one_shot_recovery", "sampled_recovery"):
        assert "{value:.1f} [{low:.1f}, {high:.1f}]".format(**times_100(summary[name]["median"])) in printed
    for name in ("one_shot_perplexity", "order_agnostic_perplexity"):
        assert "{value:.2f} [{low:.2f}, {high:.2f}]".format(**summary[name]) in printed
    assert shown == ""


def times_100(estimate):
    return {name: 100 * value for name, value in estimate.items()}


def test_files_that_cannot_be_used_are_named_and_the_others_measured(capsys, model_folder, structures, tmp_path):
    folder = tmp_path / "some"
    shutil.copytree(structures, folder)
    (folder / "broken.pdb").write_text("nothing\n")
    status, _, shown = evaluate(
        capsys, "--model", model_folder, "--pdb_path", folder, "--out_dir", tmp_path / "out", *FEW
    )
    assert status == 1
    assert "WARNING" in shown and "broken.pdb: no atoms" in shown
    assert len(names(tmp_path / "out")) == 3
    assert "broken.pdb" in document(tmp_path / "out")["unusable"][0]


def test_a_listed_file_that_is_not_there_is_named_by_its_line(capsys, model_folder, structures, tmp_path):
    paths = tmp_path / "paths.txt"
    paths.write_text(f"absent.pdb\n{structures / '5PTI.cif.gz'}\n")
    status, _, shown = evaluate(capsys, "--model", model_folder, "--pdb_path", paths, *FEW)
    told = f"{paths}, line 1: there is no file {tmp_path / 'absent.pdb'}; correct the line or remove it"
    assert status == 1 and f"WARNING: {told}" in shown and "Errno" not in shown


def test_two_processes_give_what_one_gives(model_folder, structures, of_the_files, tmp_path):
    folder = tmp_path / "some"
    shutil.copytree(structures, folder)
    (folder / "broken.pdb").write_text("nothing\n")
    done = on_two_processes(
        *("evaluate", "--model", model_folder, "--pdb_path", folder, "--out_dir", tmp_path / "two"),
        *("--steps", "1,2", "--orders", "random,confidence", *FEW),
    )
    assert done.returncode == 1 and done.stdout.count("3 structures") == 1, done.stdout + done.stderr
    assert done.stderr.count("broken.pdb: no atoms") == 1
    assert {path.name for path in (tmp_path / "two").iterdir()} == {path.name for path in of_the_files.iterdir()}
    assert without_times(document(tmp_path / "two")) == without_times(document(of_the_files))


def without_times(written):
    """Figures alone: neither paths, nor how long it took."""
    times = ("seconds", "residues_per_second")
    steps = [{name: value for name, value in row.items() if name not in times} for row in written["steps"]]
    assert all(row[name] > 0 for row in written["steps"] for name in times)
    names = ("summary", "groups", "mask_rate", "structures", "one_shot_confusion", "one_shot_calibration")
    return {"steps": steps, **{name: written[name] for name in names}}


def benchmark_entry(path, layout):
    structure = read_structure(path)
    backbone = structure.coordinates[:, :4].astype(float).round(3)
    coords = backbone.tolist()
    if layout == "by atom":
        coords = {atom: backbone[:, index].tolist() for index, atom in enumerate(("N", "CA", "C", "O"))}
    return {"name": structure.name, "seq": sequence_of(structure.residue_type), "coords": coords}


@pytest.mark.parametrize(("layout", "ending"), [("by residue", "json"), ("by atom", "jsonl")])
def test_a_benchmark_list_gives_what_the_files_give(
    capsys, model_folder, structures, of_the_files, tmp_path, layout, ending
):
    entries = [benchmark_entry(path, layout) for path in sorted(structures.iterdir())]
    path = tmp_path / f"list.{ending}"
    path.write_text(json.dumps(entries) if ending == "json" else "\n".join(map(json.dumps, entries)))
    status, _, _ = evaluate(capsys, "--model", model_folder, "--pdb_path", path, "--out_dir", tmp_path / "out", *FEW)
    assert status == 0
    for one, two in zip(document(tmp_path / "out")["structures"], document(of_the_files)["structures"], strict=True):
        assert (one["name"], one["residues"]) == (two["name"], two["residues"])
        assert one["one_shot_nll"] == pytest.approx(two["one_shot_nll"], rel=1e-3)


def test_ts50(capsys, model_folder, shared_data, tmp_path):
    options = ["--num_sequences", "0", "--num_orders", "0"]
    path = shared_data / "benchmarks" / "ts50.json"
    status, printed, _ = evaluate(capsys, "--model", model_folder, "--pdb_path", path, *options)
    assert status == 0
    assert "50 structures, 6,861 scored residues" in printed


def test_a_damaged_list_is_named(capsys, model_folder, structures, tmp_path):
    entries = [benchmark_entry(path, "by residue") for path in sorted(structures.iterdir())]
    del entries[1]["coords"][0]
    path = tmp_path / "list.json"
    path.write_text(json.dumps(entries))
    status, _, shown = evaluate(capsys, "--model", model_folder, "--pdb_path", path, *FEW)
    assert status == 1 and "5PTI: lacks what a chain list has: entry 2" in shown
    path.write_text("{")
    status, _, shown = evaluate(capsys, "--model", model_folder, "--pdb_path", path)
    assert status == 2 and f"error: {path}: not JSON" in shown


def test_each_part_of_the_split_of_a_run(capsys, run, tmp_path):
    folder, data = run
    model = folder / "save" / "best_model"
    for part in ("train", "validation"):
        status, _, _ = evaluate(capsys, "--model", model, "--split", part, "--out_dir", tmp_path / part, *FEW)
        assert status == 0
        rows = getattr(data.split, part)
        assert names(tmp_path / part) == [data.cache.names[row] for row in rows]
    cache = next(path for path in (folder / "cache").iterdir() if path.is_dir())
    evaluate(
        capsys, "--model", model, "--split", "validation", "--pdb_path", cache, "--out_dir", tmp_path / "cache", *FEW
    )
    assert names(tmp_path / "cache") == names(tmp_path / "validation")
    # The figures of the validation during training are the same.
    [epoch] = json.loads((folder / "save" / "history.json").read_text())["epochs"]
    summary = document(tmp_path / "validation")["summary"]
    assert summary["one_shot_perplexity"]["value"] == pytest.approx(epoch["one_shot_perplexity"], rel=1e-3)
    assert summary["one_shot_recovery"]["by_residue"]["value"] == pytest.approx(epoch["one_shot_recovery"], abs=2e-3)
    status, _, shown = evaluate(capsys, "--model", model, "--split", "test")
    assert status == 2 and "--split test: the split of this run has no test structures" in shown


def test_a_split_is_refused_where_it_cannot_be_told(capsys, run, model_folder, structures, tmp_path):
    folder, _ = run
    status, _, shown = evaluate(capsys, "--model", model_folder, "--split", "validation")
    assert status == 2 and "has no settings.json" in shown
    model = folder / "save" / "best_model"
    cache = build_cache(structures, tmp_path / "cache", progress=False)
    status, _, shown = evaluate(capsys, "--model", model, "--split", "validation", "--pdb_path", cache.folder)
    assert status == 2 and "are not those that the model was trained on" in shown
    status, printed, _ = evaluate(capsys, "--model", model, "--pdb_path", cache.folder, *FEW)
    assert status == 0 and "3 structures" in printed


def test_designs_of_any_tool(capsys, structures, tmp_path):
    expected = {}
    for path in sorted(structures.iterdir()):
        structure = read_structure(path)
        design = structure.residue_type.copy()
        design[::3] = (design[::3] + 1) % 20
        expected[structure.name] = float((design == structure.residue_type).mean())
        (tmp_path / "designs").mkdir(exist_ok=True)
        write_fasta(
            tmp_path / "designs" / f"{structure.name}.fa",
            [
                (f"{structure.name}, score=1.2, designed_chains=['A']", sequence_of(structure.residue_type)),
                ("T=0.1, sample=1, score=0.8", sequence_of(design)),
            ],
        )
    out = tmp_path / "out"
    status, printed, _ = evaluate(capsys, "--designs", tmp_path / "designs", "--pdb_path", structures, "--out_dir", out)
    assert status == 0
    found = {entry["name"]: entry["sampled_recovery"] for entry in document(out)["structures"]}
    assert found == pytest.approx(expected)
    assert document(out)["summary"]["one_shot_perplexity"] is None and "one-shot" not in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "MODEL"], "give --pdb_path, or --split"),
        (["--model", "MODEL", "--pdb_path", "nowhere"], "nowhere: there is no such file or folder"),
        (
            ["--model", "MODEL", "--pdb_path", "s3://lab/cache"],
            "fetch the cache first, by python -m protein_model cache",
        ),
        (["--model", "nowhere", "--pdb_path", "DATA"], "--model nowhere: is neither a model that this package ships"),
        (["--model", "MODEL", "--pdb_path", "DATA", "--num_orders", "-1"], "--num_orders must be at least 0"),
        (["--model", "MODEL", "--pdb_path", "DATA", "--steps", "0"], "--steps 0"),
        (["--model", "MODEL", "--pdb_path", "DATA", "--num_steps", "x"], "--num_steps x: 'x' is neither"),
        (["--model", "MODEL", "--pdb_path", "DATA", "--num_steps", "4,8"], "give one number here"),
        (["--model", "MODEL", "--pdb_path", "DATA", "--orders", "up"], "there is no order 'up'"),
        (["--model", "MODEL", "--pdb_path", "DATA", "--steps", "4", "--num_sequences", "0"], "--steps"),
        (["--designs", "DATA", "--pdb_path", "DATA", "--steps", "4"], "--steps, --orders and --split go with --model"),
        (["--designs", "DATA", "--pdb_path", "DATA"], "no FASTA file found"),
        (["--model", "MODEL", "--pdb_path", "DATA", "--out_dir", "FILE"], "no folder that results can be written to"),
    ],
)
def test_what_cannot_work_is_one_message_and_status_2(capsys, model_folder, structures, options, message):
    places = {"MODEL": model_folder, "DATA": structures, "FILE": structures / "1orc.pdb.gz"}
    status, _, shown = evaluate(capsys, *(places.get(option, option) for option in options))
    assert status == 2
    [line] = [line for line in shown.splitlines() if line.startswith("error: ")]
    assert message in line
