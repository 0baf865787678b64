"""Fine-tuning: a new run that begins with the weights of a trained model."""

import json
import shutil

import pytest
import torch

from protein_model.model.modeling import ProteinModel
from protein_model.training.arguments import SettingsError
from protein_model.training.starting import StartError
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


@pytest.mark.parametrize("content", [None, "{}", "no JSON", '{"model_type": "bert"}'])
def test_what_is_no_model_is_named(start, tmp_path, content):
    folder = tmp_path / "other"
    folder.mkdir()
    if content is not None:
        (folder / "config.json").write_text(content)
    with pytest.raises(StartError, match=r"--start_from .*other: is no model of this package"):
        start(start_from=str(folder))
