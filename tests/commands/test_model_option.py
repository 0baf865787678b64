"""The commands without `--model`: they use the model that the package ships, and say so in what they write."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from protein_model import load_model
from protein_model.__main__ import main
from protein_model.inference.records import read_designs
from protein_model.training.model_folder import write_model_folder
from protein_model.which_model import model_digest
from tests.inference.evaluation_cases import EXAMPLES, tiny_model

INPUT = ["--pdb_path", str(EXAMPLES / "5PTI.cif.gz")]
COMMANDS = {
    "design": [*INPUT, "--num_sequences", "1", "--num_steps", "2"],
    "score": [*INPUT, "--num_draws", "2"],
    "evaluate": [*INPUT, "--num_sequences", "1", "--num_steps", "2", "--num_orders", "2"],
}
RESULTS = {"design": "designs.json", "score": "scores.json", "evaluate": "evaluation.json"}


@pytest.fixture
def shipped(ship, tiny_model_folder, tmp_path) -> Path:
    """Two models in 16 bits without code, as the package ships them."""
    tiny_model(diffusion_kernel="uniform").save_pretrained(tmp_path / "other")
    folders = {"design": tiny_model_folder, "recovery": tmp_path / "other"}
    for name, folder in folders.items():
        write_model_folder(folder, tmp_path / "made" / name, None, "mit", dtype="float16", with_code=False)
    return ship(**{name: tmp_path / "made" / name for name in folders})


@pytest.mark.parametrize("command", list(COMMANDS))
def test_without_model_and_by_name(command, shipped, tmp_path):
    for options, name in (([], "design"), (["--model", "recovery"], "recovery")):
        out = tmp_path / name
        assert main([command, *options, *COMMANDS[command], "--out_dir", str(out)]) == 0
        settings = json.loads((out / RESULTS[command]).read_text())["settings"]
        assert settings["model"] == name and settings["model_digest"] == model_digest(shipped / name)
    if command == "design":
        assert read_designs(tmp_path / "design" / "5PTI.fasta")[1][0].model == "design"
        with (tmp_path / "recovery" / "designs.csv").open(newline="") as table:
            assert {row["model"] for row in csv.DictReader(table)} == {"recovery"}


@pytest.mark.parametrize("command", list(COMMANDS))
def test_help_and_messages_list_what_ships(command, shipped, capsys, tmp_path):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert "(design, recovery)" in " ".join(capsys.readouterr().out.split())
    assert main([command, "--model", "desing", *COMMANDS[command], "--out_dir", str(tmp_path / "out")]) == 2
    assert "--model desing: is neither a model that this package ships (design, recovery)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_shipped_model_has_no_split_of_a_run(shipped, capsys):
    assert main(["evaluate", "--split", "validation"]) == 2
    assert "has no settings.json, so the split of its run is not known" in capsys.readouterr().err


def test_evaluated_designs_are_of_no_model(shipped, tmp_path):
    assert main(["design", *COMMANDS["design"], "--out_dir", str(tmp_path / "designs")]) == 0
    out = tmp_path / "evaluation"
    assert main(["evaluate", *INPUT, "--designs", str(tmp_path / "designs"), "--out_dir", str(out)]) == 0
    assert not {"model", "model_digest"} & json.loads((out / "evaluation.json").read_text())["settings"].keys()


def test_from_python_in_32_bits_whatever_the_file_has(shipped, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    model = load_model()
    stored = load_file(shipped / "design" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert model.state_dict().keys() == stored.keys() and model.dtype == torch.float32
    assert all(torch.equal(tensor, stored[name].float()) for name, tensor in model.state_dict().items())
    assert load_model("recovery").config.diffusion_kernel == "uniform"
    # A folder that says 16 bits itself, as `model.half().save_pretrained(folder)` makes it.
    tiny_model().half().save_pretrained(tmp_path / "half")
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "float16"
    assert load_model(tmp_path / "half").dtype == torch.float32
