"""What must be equal between two runs that are said to be the same."""

import json

import torch
from safetensors.torch import load_file

TIMES = {"seconds", "residues_per_second"}


def state_of(trainer):
    """Everything that must be equal after a resume, bitwise: weights, optimizer, average, history, best, cursor."""
    optimizer = trainer.optimizer.optimizer.state_dict()
    tensors = {f"model.{name}": value.clone() for name, value in trainer.network.state_dict().items()}
    for index, entry in optimizer["state"].items():
        tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value).clone() for name, value in entry.items()}
    tensors |= {f"average.{name}": value.clone() for name, value in trainer.average.state_dict()["average"].items()}
    history = [{k: v for k, v in epoch.items() if k not in TIMES} for epoch in trainer.history.epochs]
    return tensors, history, trainer.best.state_dict(), trainer.progress.step


def assert_same(one, other):
    assert one[0].keys() == other[0].keys()
    for name, value in one[0].items():
        assert torch.equal(value, other[0][name]), name
    assert one[1:] == other[1:]


def history(save_dir):
    """Epochs of a run as its folder tells them, without what depends on the clock."""
    document = json.loads((save_dir / "history.json").read_text())
    return [{k: v for k, v in epoch.items() if k not in TIMES} for epoch in document["epochs"]]


def final_state(save_dir, epochs=3):
    """Weights, optimizer state and average in the checkpoint of an epoch, by name."""
    folder = save_dir / f"checkpoint_epoch_{epochs}"
    tensors = load_file(folder / "state" / "model.safetensors")
    for name in ("optimizer.bin", "custom_checkpoint_3.pkl"):
        tensors |= flat(torch.load(folder / "state" / name, weights_only=True), name)
    return tensors


def flat(state, name):
    if isinstance(state, torch.Tensor):
        return {name: state}
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, (list, tuple)) else ()
    return {key: value for part, below in items for key, value in flat(below, f"{name}/{part}").items()}
