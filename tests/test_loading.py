"""A trained model is read whole or not at all."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from protein_model.loading import NoModel, pretrained
from tests.inference.evaluation_cases import tiny_model


@pytest.fixture
def folder(tmp_path):
    tiny_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_in_32_bits_whatever_the_weights_are_kept_in_and_with_options(folder):
    weights = {name: tensor.half() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    model = pretrained(folder, dropout=0.25)
    assert model.config.dropout == 0.25
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == torch.float32 and torch.equal(tensor, weights[name].float())


def without_config(folder):
    (folder / "config.json").unlink()


def without_weights(folder):
    (folder / "model.safetensors").unlink()


def config_that_is_no_json(folder):
    (folder / "config.json").write_text("{")


def other_sizes(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_dim": 8}))


def impossible_size(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_dim": -1}))


def size_in_words(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_dim": "many"}))


def cut_off(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    "damage",
    [
        without_config,
        without_weights,
        config_that_is_no_json,
        other_sizes,
        impossible_size,
        size_in_words,
        cut_off,
    ],
)
def test_damage_is_told_in_one_line(folder, damage):
    damage(folder)
    with pytest.raises(NoModel) as raised:
        pretrained(folder)
    assert str(raised.value) and "\n" not in str(raised.value)
