"""Exponential moving average of the weights: what is validated, saved as the best model and used for design."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """Float32 running average of a model's parameters; a registered object of the `Accelerator`.

    Parameters
    ----------
    model : the unwrapped model; its parameters are read at every update
    decay : share of the average that an update keeps, 0 to 1. Early updates keep less, (1 + n) / (10 + n) after n
        updates, so that the random first weights are soon forgotten. 0 makes the average equal to the weights.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.updates = 0
        self._names = [name for name, _ in model.named_parameters()]
        self._parameters = [parameter for _, parameter in model.named_parameters()]
        self._average = [parameter.detach().float().clone() for parameter in self._parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after an optimizer step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        weights = [parameter.detach().float() for parameter in self._parameters]
        torch._foreach_lerp_(self._average, weights, 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the context the model has the averaged weights."""
        trained = [parameter.data for parameter in self._parameters]
        for parameter, average in zip(self._parameters, self._average, strict=True):
            parameter.data = average.to(parameter.dtype)
        try:
            yield
        finally:
            for parameter, weights in zip(self._parameters, trained, strict=True):
                parameter.data = weights

    @staticmethod
    def named_weights(state: dict[str, Any], model_state: dict[str, Tensor]) -> dict[str, Tensor]:
        """State of a model with averaged weights, from a state of the average and one of the model."""
        average = {name: value.to(model_state[name].dtype) for name, value in state["average"].items()}
        return {**model_state, **average}

    def state_dict(self) -> dict[str, Any]:
        average: dict[str, Tensor] = dict(zip(self._names, self._average, strict=True))
        return {"updates": self.updates, "average": average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = int(state["updates"])
        for name, average in zip(self._names, self._average, strict=True):
            average.copy_(state["average"][name])
