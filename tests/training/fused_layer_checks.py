"""Checks of the kernels that need Triton's interpreter from the first import on: `test_fused_layer` runs them."""

import copy

import numpy as np
import pytest
import torch
import triton.language as tl
from triton.runtime import interpreter

from protein_model.model.configuration import ProteinModelConfig
from protein_model.model.encoder import EncoderLayer
from protein_model.model.modeling import ProteinModel
from protein_model.training import fused_layer
from protein_model.training.arguments import Settings
from protein_model.training.fused_layer import EdgeWeights, edge_work, edge_work_in_torch, fuse_layers
from protein_model.training.fusing import worst_difference

CPU = torch.device("cpu")


@pytest.fixture(autouse=True, scope="module")
def products_of_16_bits():
    """The interpreter has numbers in bf16 as bit patterns, and multiplies these as if they were integers."""
    plain = interpreter.InterpreterBuilder.create_dot

    def widened(handle):
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        bits = handle.data.astype(np.uint32) << 16
        return interpreter.TensorHandle(bits.view(np.float32), tl.float32)

    def create_dot(self, a, b, *rest):
        return plain(self, widened(a), widened(b), *rest)

    interpreter.InterpreterBuilder.create_dot = create_dot
    yield
    interpreter.InterpreterBuilder.create_dot = plain


def assert_near(found, expected, limit, name):
    """Relative to the norm, as single numbers may cancel."""
    found, expected = found.detach().double(), expected.detach().double()
    error, size = float((found - expected).norm()), float(expected.norm())
    assert error <= limit * size, f"{name} is off by {error:.1e} of {size:.1e}"


def drawn(count, num_neighbours, width, stream, dtype, multiplied):
    """Arguments of `edge_work`, and gradients of its results."""
    generator = torch.Generator().manual_seed(1000 * count + 10 * num_neighbours + width)

    def normal(*shape, dtype=torch.float32, scale=1.0):
        return (scale * torch.randn(shape, generator=generator)).to(dtype).requires_grad_()

    edges = (2 * torch.randn(count, num_neighbours, width, generator=generator) + 0.5).to(stream).requires_grad_()
    neighbours = torch.randint(0, max(count, 1), (count, num_neighbours), generator=generator)
    weights = (torch.rand(count, num_neighbours, generator=generator) < 0.8).to(dtype) / num_neighbours
    parameters = EdgeWeights(
        norm_weight=normal(width),
        norm_bias=normal(width),
        from_edge=normal(width, width, scale=width**-0.5),
        out=normal(width, width, scale=width**-0.5),
        out_bias=normal(width),
        epsilon=1e-5,
    )
    multiplier = (torch.rand(count, width, generator=generator) < 0.7).to(dtype) / 0.7 if multiplied else None
    arguments = [edges, normal(count, width, dtype=dtype), normal(count, width, dtype=dtype), neighbours, weights]
    gradients = [normal(count, width, dtype=dtype).detach(), normal(*edges.shape, dtype=stream).detach()]
    return [*arguments, parameters, multiplier], gradients


def results(work, arguments, gradients):
    parameters = arguments[5]
    inputs = {"edges": arguments[0], "from_neighbour": arguments[1], "from_residue": arguments[2]}
    inputs |= {name: value for name, value in vars(parameters).items() if name != "epsilon"}
    outputs = work(*arguments)
    found = torch.autograd.grad(outputs, list(inputs.values()), gradients)
    return {"gathered": outputs[0], "new edges": outputs[1], **dict(zip(inputs, found, strict=True))}


def in_double(arguments, gradients):
    def double(value):
        return value.detach().double().requires_grad_(value.requires_grad) if value is not None else None

    edges, from_neighbour, from_residue, neighbours, weights, parameters, multiplier = arguments
    wide = {name: value if name == "epsilon" else double(value) for name, value in vars(parameters).items()}
    inputs = [double(edges), double(from_neighbour), double(from_residue), neighbours, double(weights)]
    return [*inputs, EdgeWeights(**wide), double(multiplier)], [double(gradient) for gradient in gradients]


@pytest.mark.parametrize("multiplied", [False, True])
@pytest.mark.parametrize(
    ("stream", "dtype", "limit"),
    [
        (torch.float32, torch.float32, 2e-6),
        (torch.float32, torch.float16, 3e-3),
        (torch.float32, torch.bfloat16, 2e-2),
        (torch.bfloat16, torch.bfloat16, 2e-2),
    ],
)
@pytest.mark.parametrize(
    ("count", "num_neighbours", "width"), [(9, 30, 80), (5, 48, 128), (7, 17, 96), (11, 3, 64), (3, 16, 20), (1, 1, 8)]
)
def test_outputs_and_all_gradients_are_those_of_torch_in_double(
    count, num_neighbours, width, stream, dtype, limit, multiplied
):
    given = drawn(count, num_neighbours, width, stream, dtype, multiplied)
    found, expected = results(edge_work, *given), results(edge_work_in_torch, *in_double(*given))
    assert found["gathered"].dtype == found["from_neighbour"].dtype == dtype and found["new edges"].dtype == stream
    for name, value in expected.items():
        assert_near(found[name], value, limit, name)


def test_no_residues_have_no_edges_and_gradients_of_zero():
    found = results(edge_work, *drawn(0, 5, 16, torch.float32, torch.float32, True))
    assert found["new edges"].shape == (0, 5, 16)
    assert all(not value.any() for value in found.values())


def test_the_same_bits_every_time_and_with_one_tile_for_each_program(monkeypatch):
    given = drawn(15, 5, 16, torch.float32, torch.bfloat16, True)
    first, second = results(edge_work, *given), results(edge_work, *given)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    monkeypatch.setattr(fused_layer, "_multiprocessors", lambda device: 1000)
    for name, value in results(edge_work, *given).items():
        assert_near(value, first[name], 1e-5, name)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="a width of at most 128, but have 129"):
        edge_work(*drawn(2, 3, 129, torch.float32, torch.float32, False)[0])


def trained(model, work, *inputs):
    """Outputs of a module and the gradients of all its parameters, for some gradient of the outputs."""
    model.zero_grad()
    outputs = work(*inputs)
    sum((output.float() * torch.linspace(-1, 2, output.numel()).view_as(output)).sum() for output in outputs).backward()
    return [output.detach() for output in outputs], {name: value.grad for name, value in model.named_parameters()}


@pytest.mark.parametrize(("sixteen_bits", "limit"), [(False, 1e-5), (True, 4e-2)])
def test_a_layer_is_the_same_fused(sixteen_bits, limit):
    torch.manual_seed(3)
    model = ProteinModel(ProteinModelConfig(hidden_dim=48, num_encoder_layers=1, num_neighbors=7, dropout=0.2)).eval()
    layer = model.encoder.layers[0]
    residues, edges = torch.randn(13, 48, requires_grad=True), torch.randn(13, 7, 48, requires_grad=True)
    neighbours, present = torch.randint(0, 13, (13, 7)), torch.rand(13, 7) < 0.8
    with torch.autocast("cpu", torch.bfloat16, enabled=sixteen_bits):
        outputs, gradients = trained(layer, layer, residues, edges, neighbours, present)
        of_inputs, residues.grad, edges.grad = (residues.grad, edges.grad), None, None
        fuse_layers(model)
        assert type(layer) is EncoderLayer
        fused_outputs, fused_gradients = trained(layer, layer, residues, edges, neighbours, present)
    for name, found, expected in zip(
        ("residues", "edges", "of residues", "of edges"),
        (*fused_outputs, residues.grad, edges.grad),
        (*outputs, *of_inputs),
        strict=True,
    ):
        assert found.dtype == expected.dtype
        assert_near(found, expected, limit, name)
    for name, expected in gradients.items():
        assert fused_gradients[name].dtype == expected.dtype
        assert_near(fused_gradients[name], expected, limit, name)


def backbones(count, generator):
    """Two chains of residues that are near each other, of which one has no coordinates."""
    steps = torch.randn(count, 1, 3, generator=generator).cumsum(0) * 2
    usable = torch.ones(count, dtype=torch.bool)
    usable[5] = False
    index = (torch.arange(count) >= count // 2).long()
    return {
        "backbone": steps + torch.randn(count, 4, 3, generator=generator),
        "backbone_mask": usable,
        "structure_index": index,
        "chain_index": torch.zeros(count, dtype=torch.long),
        "position": torch.arange(count),
        "tokens": torch.randint(0, 21, (count,), generator=generator),
        "noise_level": torch.tensor([0.3, 0.9]),
        "labels": torch.randint(0, 20, (count,), generator=generator),
    }


def test_a_network_has_the_same_loss_and_gradients_fused_and_draws_its_dropout():
    torch.manual_seed(5)
    config = ProteinModelConfig(hidden_dim=32, num_encoder_layers=2, num_neighbors=6, dropout=0.3)
    network = ProteinModel(config).eval()
    torch.nn.init.normal_(network.decoder.to_logits.weight)
    batch = backbones(24, torch.Generator().manual_seed(6))
    plain = copy.deepcopy(network)
    fuse_layers(network)
    losses = [each(**batch).loss for each in (plain, network)]
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=0)
    for (name, expected), found in zip(plain.named_parameters(), network.parameters(), strict=True):
        if expected.grad is not None and expected.grad.any():
            assert_near(found.grad, expected.grad, 1e-4, name)
    assert network.state_dict().keys() == plain.state_dict().keys()
    network.train()
    drawn_losses = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        drawn_losses.append(float(network(**batch).loss.detach()))
    assert drawn_losses[0] == drawn_losses[1] != drawn_losses[2]


def test_dropout_of_a_fused_layer_is_that_of_all_edges_of_a_residue():
    torch.manual_seed(0)
    model = ProteinModel(ProteinModelConfig(hidden_dim=16, num_encoder_layers=1, num_neighbors=5, dropout=0.5)).train()
    fuse_layers(model)
    residues, edges = torch.randn(40, 16), torch.randn(40, 5, 16)
    neighbours, present = torch.randint(0, 40, (40, 5)), torch.ones(40, 5, dtype=torch.bool)
    lost = model.encoder.layers[0](residues, edges, neighbours, present)[1] == edges
    assert torch.equal(lost, lost[:, :1].expand_as(lost))
    assert 0.4 < lost.float().mean() < 0.6


def test_the_trial_of_a_launch_passes_and_notices_a_wrong_kernel(monkeypatch):
    settings = Settings(hidden_dim=40, num_neighbors=9)
    assert worst_difference(settings, torch.bfloat16, CPU)[1] < 0.02
    launch = fused_layer._launch

    def wrong(name, edges, *arguments, **constants):
        # as if the last neighbour had been forgotten
        if name == "forward_kernel":
            weights = arguments[4].clone()
            weights[:, -1] = 0
            arguments = (*arguments[:4], weights, *arguments[5:])
        launch(name, edges, *arguments, **constants)

    monkeypatch.setattr(fused_layer, "_launch", wrong)
    name, worst = worst_difference(settings, torch.bfloat16, CPU)
    assert name == "the sum of the messages" and worst > 0.1
