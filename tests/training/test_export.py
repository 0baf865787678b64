"""The command `export`: the same predictions in half the bytes, a card with figures, a beginning for fine-tuning."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import load_file, save_file

from protein_model import load_model
from protein_model.__main__ import main as command
from protein_model.training.arguments import EXAMPLES, GivenOptions
from protein_model.training.trainer import Trainer
from protein_model.which_model import find_model
from tests.training.conftest import TINY
from tests.training.test_model_folder import example_inputs, predicted_without_this_package

FEW = ["--num_sequences", "2", "--num_steps", "3", "--num_orders", "3"]


@pytest.fixture(scope="module")
def trained(structures, cache_dir, tmp_path_factory) -> Path:
    """Save folder of a run that has learnt something; only to be read."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    places = {"pdb_path": structures, "cache_dir": cache_dir, "save_dir": tmp_path_factory.mktemp("trained") / "run"}
    options = {"epochs": 40, "save_every": 40, "learning_rate": 2e-2, "ema_decay": 0.8, "dropout": 0.0}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the fixture that does so for tests is not there yet
    trainer = Trainer(GivenOptions({**TINY, **options, **{name: str(path) for name, path in places.items()}}))
    trainer.fit()
    trainer.store.unlock()
    torch.set_num_threads(threads)
    return trainer.save_dir


@pytest.fixture(scope="module")
def evaluation(trained, tmp_path_factory) -> Path:
    """Figures of its best model."""
    out = tmp_path_factory.mktemp("evaluation")
    options = ["--model", trained / "best_model", "--pdb_path", EXAMPLES / "5PTI.cif.gz", "--out_dir", out, *FEW]
    assert command(["evaluate", *map(str, options)]) == 0
    return out


@pytest.fixture
def export(trained, tmp_path):
    """`export("--dtype", "float16", out="name")` exports the best model and gives the folder."""

    def run(*options: str, out: str = "out", model: Path = trained / "best_model", status: int = 0) -> Path:
        given = ["--model", str(model), "--out_dir", str(tmp_path / out), *options]
        assert command(["export", *given]) == status
        return tmp_path / out

    return run


def log_probabilities(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        return load_model(folder)(**example_inputs()).logits.log_softmax(-1)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_16_bits_change_the_predictions_little_and_32_not_at_all(export, trained):
    original = log_probabilities(trained / "best_model")
    same, half, brain = (export("--dtype", dtype, out=dtype) for dtype in ("float32", "float16", "bfloat16"))
    assert torch.equal(log_probabilities(same), original)
    assert (same / "model.safetensors").read_bytes() == (trained / "best_model" / "model.safetensors").read_bytes()
    for folder, limit in ((half, 0.01), (brain, 0.15)):
        # Nats, of all types at all residues of an example; 0.0008 and 0.012 were measured.
        difference = (log_probabilities(folder) - original).abs().max().item()
        assert 0 < difference < limit
        assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"
        assert (folder / "model.safetensors").stat().st_size < 0.7 * (same / "model.safetensors").stat().st_size
    # Back in 32 bits, and without --dtype, everything is as it was in 16.
    for options in (["--dtype", "float32"], []):
        again = export(*options, out="again", model=half)
        assert torch.equal(log_probabilities(again), log_probabilities(half))


def test_16_bits_load_without_this_package_and_compute_in_32(export, tmp_path):
    folder = export("--dtype", "float16")
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.float16}
    inputs = example_inputs()
    found = predicted_without_this_package(folder, inputs, tmp_path)
    assert found.dtype == torch.float32
    with torch.no_grad():
        assert torch.equal(found, load_model(folder)(**inputs).logits)


def test_without_code_it_is_for_this_package(export, trained, tmp_path):
    folder = export("--without_code", "--dtype", "float16", out="mine")
    assert content(folder).keys() == {"config.json", "model.safetensors", "README.md", "loss_curve.png"}
    assert "auto_map" not in json.loads((folder / "config.json").read_text())
    card = (folder / "README.md").read_text()
    assert "# mine\n" in card and 'load_model("mine")' in card and "trust_remote_code" not in card
    assert "`*.py`" not in card
    with_code = export("--dtype", "float16", out="with_code")
    assert torch.equal(log_probabilities(folder), log_probabilities(with_code))


def test_the_card_has_the_figures_of_evaluations_and_the_history(export, evaluation, trained):
    card = (export("--dtype", "float16", "--evaluation", f"small set={evaluation}") / "README.md").read_text()
    document = json.loads((evaluation / "evaluation.json").read_text())
    summary = document["summary"]
    for text in (
        "| | small set |".replace("| |", "|  |"),
        f"| structures | {summary['structures']} |",
        f"| sampled recovery, median over structures | {100 * summary['sampled_recovery']['median']['value']:.1f} % |",
        f"| sampled recovery, mean over structures | {100 * summary['sampled_recovery']['mean']['value']:.1f} % |",
        f"| one-shot perplexity | {summary['one_shot_perplexity']['value']:.2f} |",
        f"| order-agnostic perplexity | {summary['order_agnostic_perplexity']['value']:.2f} |",
        "| temperature of sampling | 0.1 |",
        "| denoising steps | 3 |",
        "40 epochs, ",
        " in float16; computed with in float32.",
    ):
        assert text in card, text


def test_nothing_of_it_tells_where_it_was_made(export, evaluation, trained, structures):
    folder = export("--evaluation", f"set={evaluation}")
    for name, written in content(folder).items():
        for private in (trained, structures, evaluation, Path.home(), Path.cwd()):
            assert str(private).encode() not in written, name


def test_figures_of_another_model_stay_out_of_the_card(export, evaluation, trained, capsys, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(evaluation, other)
    document = json.loads((other / "evaluation.json").read_text())
    document["settings"]["model_digest"] = "0" * 32
    (other / "evaluation.json").write_text(json.dumps(document))
    folder = export("--evaluation", f"set={other}", status=2)
    assert "--evaluation set: was not measured with this model" in capsys.readouterr().err
    assert not folder.exists()


def test_an_evaluation_of_the_export_itself_counts(export, tmp_path):
    folder = export("--dtype", "float16")
    options = ["--model", folder, "--pdb_path", EXAMPLES / "5PTI.cif.gz", "--out_dir", tmp_path / "figures", *FEW]
    assert command(["evaluate", *map(str, options)]) == 0
    again = export("--dtype", "float16", "--evaluation", f"set={tmp_path / 'figures'}")
    assert "## Evaluation" in (again / "README.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--evaluation", "somewhere"], "--evaluation somewhere: give a name and a folder"),
        (["--evaluation", "a=nowhere"], "--evaluation a=nowhere: has no evaluation.json"),
        (["--evaluation", "a=EVALUATION", "a=EVALUATION"], "the name a is there twice"),
        (["--evaluation", "a=BROKEN"], "evaluation.json cannot be read"),
        (["--model", "nowhere"], "--model nowhere: is neither a model that this package ships"),
        (["--out_dir", "MODEL"], "is the model itself; give another folder"),
        (["--out_dir", "BROKEN"], "holds evaluation.json, which is not of such a folder"),
        (["--out_dir", "SCRIPTS"], "holds program.py, which is not of such a folder"),
        (["--out_dir", "FILE"], "is a file; give a folder"),
        (["--out_dir", "FILE/below"], "no folder can be made there (Not a directory)"),
        (["--model", "DAMAGED"], "model.safetensors: cannot be read"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(export, options, message, capsys, trained, evaluation, tmp_path):
    places = {name: tmp_path / name for name in ("BROKEN", "SCRIPTS", "FILE")}
    for name in ("BROKEN", "SCRIPTS"):
        places[name].mkdir()
    (places["BROKEN"] / "evaluation.json").write_text("{}")
    places["DAMAGED"] = tmp_path / "DAMAGED"
    shutil.copytree(find_model("design"), places["DAMAGED"])
    os.truncate(places["DAMAGED"] / "model.safetensors", 10_000)
    (places["SCRIPTS"] / "program.py").write_text("pass")
    places["FILE"].write_text("text")
    places |= {"MODEL": trained / "best_model", "EVALUATION": evaluation}
    before = content(trained / "best_model")
    words = []
    for option in options:
        for name, path in places.items():
            option = option.replace(name, str(path))
        words.append(option)
    export(*words, status=2)
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
    assert places["SCRIPTS"].is_dir() and (places["SCRIPTS"] / "program.py").exists() and places["FILE"].is_file()
    assert content(trained / "best_model") == before


def test_a_weight_that_does_not_fit_leaves_what_was_there(export, trained, tmp_path, capsys):
    folder = export("--dtype", "float16")
    before = content(folder)
    huge = tmp_path / "huge"
    huge.mkdir()
    shutil.copy(trained / "best_model" / "config.json", huge)
    weights = load_file(trained / "best_model" / "model.safetensors")
    weights["decoder.to_logits.bias"][0] = 1e5
    save_file(weights, huge / "model.safetensors", metadata={"format": "pt"})
    export("--dtype", "float16", model=huge, status=2)
    assert "--dtype float16: the weights decoder.to_logits.bias have a value of 1e+05" in capsys.readouterr().err
    assert content(folder) == before
    assert content(export("--dtype", "bfloat16", model=huge)) != before  # replaced as a whole


@pytest.mark.parametrize("stop_at", [1, 2])
def test_an_interruption_at_the_end_leaves_the_old_folder_or_none(export, tmp_path, monkeypatch, stop_at):
    """At each of the renames, which are all that touches the folder."""
    folder = export("--dtype", "float16")
    before, seen, rename = content(folder), [], os.replace

    def interrupted(source, target):
        if folder in (Path(source), Path(target)):
            seen.append(content(folder) if folder.exists() else None)
            if len(seen) == stop_at:
                raise KeyboardInterrupt
        rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr("protein_model.training.model_folder.os.replace", interrupted)
        export("--dtype", "bfloat16", status=130)
    assert seen == [before, None][:stop_at]
    assert content(export("--dtype", "bfloat16")) != before
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_fine_tuning_begins_where_the_export_is_and_goes_on_in_32_bits(export, trained, launch, tmp_path):
    folder = export("--dtype", "float16", "--without_code", model=trained / "checkpoint_epoch_40")
    tuned = tmp_path / "tuned"
    options = ["--start_from", str(folder), "--save_dir", str(tuned), "--epochs", "1", "--learning_rate", "1e-4"]
    options += ["--dropout", "0"]
    output, _ = launch(*options)
    assert f"Begins with the weights of {folder}" in output
    [epoch] = json.loads((tuned / "history.json").read_text())["epochs"]
    from_nothing = json.loads((trained / "history.json").read_text())["epochs"][0]
    # Random weights give every type the same probability, a loss of log 20 = 3.00. Measured: 2.98 in the first epoch
    # from nothing; here, on the same batches and noise, 2.72 in training and 2.57 in validation.
    assert from_nothing["train_loss"] > math.log(20) - 0.1
    assert epoch["train_loss"] < math.log(20) - 0.15
    assert epoch["validation_loss"] < math.log(20) - 0.25
    # The steps of that rate are too small for 16 bits: these weights would not have moved.
    start, end = (load_file(place / "model.safetensors") for place in (folder, tuned / "best_model"))
    assert all(tensor.dtype == torch.float32 for tensor in end.values())
    moved = torch.cat([(end[name] - start[name].float()).flatten() for name in start])
    kept = torch.cat([(end[name].half() == start[name]).flatten() for name in start])
    assert (moved != 0).float().mean() > 0.9 and kept.float().mean() > 0.1
