"""What must be equal between two runs that are said to be the same."""

import torch

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
