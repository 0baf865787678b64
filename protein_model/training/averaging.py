"""Exponential moving average of the weights: what is validated, saved as the best model and used for design."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .slices import drop_gathered, own_slice, sliced_like


class WeightAverage:
    """Float32 running average of a model's parameters; a registered object of the `Accelerator`.

    Where a process holds slices of the parameters, it holds the same slices of the average.

    Parameters
    ----------
    model : the unwrapped model; its parameters are read at every update
    decay : share of the average that an update keeps, 0 to 1. Early updates keep less, (1 + n) / (10 + n) after n
        updates, so that the random first weights are soon forgotten. 0 makes the average equal to the weights.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.updates = 0
        self._model = model
        self._names = [name for name, _ in model.named_parameters()]
        self._parameters = [parameter for _, parameter in model.named_parameters()]
        self._average = [parameter.detach().float().clone() for parameter in self._parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after an optimizer step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        weights = [weight.float() for weight in self._own_weights()]
        torch._foreach_lerp_(self._own_average(), weights, 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the context the model has the averaged weights."""
        weights = self._own_weights()
        trained = [weight.clone() for weight in weights]
        torch._foreach_copy_(weights, self._own_average())
        try:
            yield
        finally:
            torch._foreach_copy_(weights, trained)
            drop_gathered(self._model)

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
            own_slice(average).copy_(own_slice(sliced_like(state["average"][name], average)))

    def _own_weights(self) -> list[Tensor]:
        return [own_slice(parameter.detach()) for parameter in self._parameters]

    def _own_average(self) -> list[Tensor]:
        return [own_slice(average) for average in self._average]
