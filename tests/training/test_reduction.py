"""Gradients of shards are summed in one fixed order and come to what ordinary accumulation comes to."""

import torch
from accelerate import Accelerator

from protein_model.training.reduction import OrderedReduction

from .comparison import state_of


def test_the_gradient_is_that_of_all_shards_together():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    shards = torch.randn(6, 3, 5)
    parameters = list(model.parameters())
    model(shards.flatten(0, 1)).sum().backward()
    expected = [parameter.grad.clone() for parameter in parameters]
    model.zero_grad()
    reduction = OrderedReduction(Accelerator(), parameters)
    for number, shard in enumerate(shards):
        model(shard).sum().backward()
        reduction.add(torch.tensor([1.0, float(number)], dtype=torch.float64))
        assert all(parameter.grad is None for parameter in parameters)
    assert reduction.finish().tolist() == [6.0, 15.0]
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_a_run_with_it_is_the_ordinary_run_up_to_rounding(start):
    ordinary = start(save_dir="ordinary", gradient_accumulation_steps=2, epochs=2)
    ordinary.fit()
    ordered = start(save_dir="ordered", gradient_accumulation_steps=2, epochs=2, deterministic=True)
    ordered.fit()
    for name, value in state_of(ordinary)[0].items():
        if name.startswith("model"):
            torch.testing.assert_close(state_of(ordered)[0][name], value, rtol=1e-3, atol=1e-5)
