"""Optimizer state by parameter name: how it is numbered in files, and how it comes back into this trainer's groups.

Torch numbers the state of an optimizer by the order of the parameters over all groups. This trainer has two groups,
matrices with weight decay and everything else without; others have one, or one for encoder and one for decoder. In a
file every group names its parameters under `param_names`, which is also what torch writes for an optimizer that was
given named parameters; state is matched by these names.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..model.modeling import ProteinModel
from .preparation import build_optimizer
from .single_file import is_dense

NAMES = "param_names"
# Settings of a group that belong to the state; rates and decay are the trainer's own.
_CARRIED = ("betas", "eps", "amsgrad")


class OptimizerStateError(ValueError):
    """An optimizer state cannot be used; the message continues a sentence that begins with what it is."""


def parameter_groups(model: ProteinModel) -> list[list[str]]:
    """Names of the parameters in each group of this trainer's optimizer."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    optimizer = build_optimizer(model, 0.0, torch.device("cpu"))
    return [[names[id(parameter)] for parameter in group["params"]] for group in optimizer.param_groups]


def for_other_programs(state: dict[str, Any], model: ProteinModel, rate: float) -> dict[str, Any]:
    """An optimizer state of this trainer as others expect it: groups with the names of their parameters and the rate of
    the next step, from which torch's schedulers go on. (This trainer sets the rate before every step.)

    Raises
    ------
    OptimizerStateError : it is not of this model's optimizer
    """
    groups, saved = parameter_groups(model), state["param_groups"]
    if [len(group["params"]) for group in saved] != [len(names) for names in groups]:
        raise OptimizerStateError("is not of this model: its parameter groups have other sizes")
    named = [{**group, "lr": rate, NAMES: names} for group, names in zip(saved, groups, strict=True)]
    return {**state, "param_groups": named}


def numbered_names(state: Any) -> list[list[str]] | None:
    """`param_names` of every group; None where a group has none, or not one for each parameter.

    Raises
    ------
    OptimizerStateError : this is no state of an optimizer
    """
    groups = _groups(state)
    found = [group.get(NAMES) for group in groups]
    for group, names in zip(groups, found, strict=True):
        if not isinstance(names, (list, tuple)) or len(names) != len(group["params"]):
            return None
    return [list(map(str, names)) for names in found if names is not None]


def rearranged(
    state: Any, model: ProteinModel, names: list[list[str]] | None = None, weight_decay: float = 0.0
) -> dict[str, Any]:
    """An optimizer state in the groups and the order of this trainer's optimizer.

    Parameters
    ----------
    state : state dictionary of an Adam or AdamW optimizer
    names : parameters of each of its groups, where `param_names` does not tell
    weight_decay : of this trainer's first group, where the groups of the state are others

    Raises
    ------
    OptimizerStateError : it does not fit the model
    """
    saved = _groups(state)
    names = names or numbered_names(state)
    if names is None:
        raise OptimizerStateError(f"has no {NAMES}, so that nobody knows which parameter is which")
    parameters = dict(model.named_parameters())
    numbers = {
        name: number
        for group, group_names in zip(saved, names, strict=True)
        for number, name in zip(group["params"], group_names, strict=True)
    }
    if sum(map(len, names)) != len(numbers):
        raise OptimizerStateError("names a parameter twice")
    if numbers.keys() != parameters.keys():
        odd = sorted(numbers.keys() ^ parameters.keys())
        raise OptimizerStateError(f"is not of this model: {odd[0]} is in one of them only")
    for name, number in numbers.items():
        if problem := _entry_problem(state["state"].get(number), parameters[name]):
            raise OptimizerStateError(f"{problem} for {name}")

    groups = parameter_groups(model)
    optimizer = build_optimizer(model, weight_decay, torch.device("cpu")).state_dict()
    same_groups = names == groups
    entries: dict[int, dict[str, Any]] = {}
    for index, (group, group_names) in enumerate(zip(optimizer["param_groups"], groups, strict=True)):
        source = saved[index] if same_groups else {key: saved[0][key] for key in _CARRIED if key in saved[0]}
        group.update({key: value for key, value in source.items() if key not in ("params", NAMES)})
        for number, name in zip(group["params"], group_names, strict=True):
            if numbers[name] in state["state"]:
                entries[number] = _entry(state["state"][numbers[name]])
    return {"state": entries, "param_groups": optimizer["param_groups"]}


def _groups(state: Any) -> list[dict[str, Any]]:
    groups = state.get("param_groups") if isinstance(state, dict) else None
    if not isinstance(groups, list) or not isinstance(state.get("state"), dict):
        raise OptimizerStateError("is not the state dictionary of an optimizer")
    for group in groups:
        numbers = group.get("params") if isinstance(group, dict) else None
        if not isinstance(numbers, list) or not all(isinstance(number, int) for number in numbers):
            raise OptimizerStateError("is not the state dictionary of an optimizer")
    return groups


def _entry_problem(entry: Any, parameter: Tensor) -> str | None:
    """What is wrong with the state of one parameter; a parameter that never had a gradient has none."""
    if entry is None:
        return None
    if not isinstance(entry, dict) or not {"step", "exp_avg", "exp_avg_sq"} <= entry.keys():
        return "is not of Adam or AdamW: there are no running averages of gradients"
    for name, value in entry.items():
        if name == "step":
            count = value.item() if is_dense(value) and value.numel() == 1 else value
            if not isinstance(count, (int, float)) or not 0 <= count < math.inf:
                return "has no number of steps"
        elif not is_dense(value) or value.shape != parameter.shape:
            return "has another shape than the model"
    return None


def _entry(entry: dict[str, Any]) -> dict[str, Any]:
    """State of one parameter as torch has it today; before torch 1.12 the steps were a Python number."""
    return {name: value if isinstance(value, Tensor) else torch.tensor(float(value)) for name, value in entry.items()}
