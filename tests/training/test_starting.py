"""Fine-tuning: a new run that begins with the weights of a trained model."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from protein_model.model.modeling import ProteinModel
from protein_model.training.arguments import SettingsError
from protein_model.training.model_folder import write_model_folder
from protein_model.training.starting import StartError
from protein_model.which_model import ModelNotFound
from tests.training.comparison import assert_same, state_of
from tests.training.conftest import TINY

# What the model does not settle; the rest of `TINY` must not be needed.
OTHER = {name: None for name in TINY if name in ("hidden_dim", "num_encoder_layers", "num_decoder_layers")}
OTHER |= {name: None for name in ("num_neighbors", "use_discrete_diffusion", "num_diffusion_steps")}


@pytest.fixture
def tune(start, monkeypatch, finished):
    """`tune(epochs=2)` starts a run from the best model of another one, without saying what model that is."""
    for name in OTHER:
        monkeypatch.delitem(TINY, name)
    model = finished.save_dir / "best_model"
    return lambda **options: start(**{"start_from": str(model), "save_dir": "tuned", **options})


def test_begins_with_the_weights_and_nothing_else_of_the_other_run(tune, finished):
    trainer = tune(epochs=2)
    start = ProteinModel.from_pretrained(finished.save_dir / "best_model").state_dict()
    for weights in (trainer.network.state_dict(), {**trainer.average.state_dict()["average"]}):
        assert weights.keys() == start.keys()
        assert all(torch.equal(weights[name], start[name]) for name in start)
    assert trainer.progress.step == 0 and not trainer.history.epochs
    before = [parameter.clone() for parameter in trainer.network.parameters()]
    trainer.fit()
    history = json.loads((trainer.save_dir / "history.json").read_text())
    assert [epoch["epoch"] for epoch in history["epochs"]] == [1, 2]
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.network.parameters(), strict=True))


def test_resumes_bitwise_when_the_other_run_is_gone(tune, start, finished):
    whole = tune(save_dir="whole", epochs=2)
    whole.fit()
    part = tune(save_dir="part", epochs=2)
    part.fit()
    shutil.rmtree(finished.save_dir)
    shutil.rmtree(part.save_dir / "checkpoint_epoch_2")
    shutil.rmtree(part.save_dir / "best_model")
    again = start(save_dir="part", resume_from="latest")
    assert again.progress.step == again.progress.steps_per_epoch
    again.fit()
    assert_same(state_of(again), state_of(whole))


def test_another_architecture_is_refused(tune, finished):
    with pytest.raises(SettingsError, match=r"--hidden_dim 32 does not fit the model of --start_from .*hidden_dim 16"):
        tune(hidden_dim=32)


def test_a_model_that_ships_goes_by_its_name_and_is_trained_in_32_bits(tune, finished, ship, tmp_path, capsys):
    half = tmp_path / "half"
    write_model_folder(finished.save_dir / "best_model", half, None, "mit", dtype="float16", with_code=False)
    ship(design=half)
    trainer = tune(start_from="design", epochs=1)
    stored = load_file(half / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    for weights in (trainer.network.state_dict(), {**trainer.average.state_dict()["average"]}):
        assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
        assert all(torch.equal(weights[name], stored[name].float()) for name in stored)
    assert "Begins with the weights of design" in capsys.readouterr().out
    trainer.fit()
    saved = json.loads((trainer.save_dir / "best_model" / "config.json").read_text())
    assert saved["dtype"] == "float32" and saved["hidden_dim"] == 16


def test_a_misspelt_name_is_told_with_those_that_ship_and_asks_no_network(start, ship, finished, monkeypatch):
    ship(design=finished.save_dir / "best_model")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a connection was tried"))
    with pytest.raises(ModelNotFound, match=r"--start_from desing: is neither a model that .* ships \(design\) nor"):
        start(start_from="desing")


@pytest.mark.parametrize("content", [None, "{}", "no JSON", '{"model_type": "bert"}'])
def test_what_is_no_model_is_named(start, tmp_path, content):
    folder = tmp_path / "other"
    folder.mkdir()
    if content is not None:
        (folder / "config.json").write_text(content)
    with pytest.raises(StartError, match=r"--start_from .*other: is no model of this package"):
        start(start_from=str(folder))
