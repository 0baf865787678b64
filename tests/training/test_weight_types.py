"""Weights in another type: which values survive, what is refused, and that nothing is half written."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from protein_model.training.weight_types import DTYPES, WeightsDoNotFit, convert_weights, describe_weights


@pytest.fixture
def file(tmp_path):
    """Weights as they are after training, with a counter among them."""
    generator = torch.Generator().manual_seed(0)
    weights = {
        "layer.weight": torch.randn(30, 20, generator=generator),
        "layer.bias": 1e-3 * torch.randn(30, generator=generator),
        "steps": torch.tensor([2**20 + 1]),
    }
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize(("dtype", "relative"), [("float16", 2.0**-11), ("bfloat16", 2.0**-8)])
def test_16_bits_round_and_halve_the_file(file, dtype, relative):
    before, size = load_file(file), file.stat().st_size
    file.chmod(0o644)
    convert_weights(file, dtype)
    after = load_file(file)
    for name in ("layer.weight", "layer.bias"):
        assert after[name].dtype == DTYPES[dtype]
        # Below 6e-5 float16 has fixed steps of 6e-8.
        torch.testing.assert_close(after[name].float(), before[name], rtol=relative, atol=6e-8)
    assert torch.equal(after["steps"], before["steps"])
    assert file.stat().st_size < 0.65 * size and file.stat().st_mode & 0o777 == 0o644
    assert describe_weights(file) == f"630 in {dtype}, 1 in I64"
    convert_weights(file, "float32")
    widened = load_file(file)
    assert all(torch.equal(widened[name], after[name].float()) for name in ("layer.weight", "layer.bias"))


def test_the_same_type_leaves_the_file_alone(file):
    before = file.read_bytes()
    convert_weights(file, "float32")
    assert file.read_bytes() == before


@pytest.mark.parametrize("value", [7e4, -7e4, float("inf"), float("nan")])
def test_a_weight_that_does_not_fit_is_named_and_the_file_stays(file, value):
    weights = load_file(file)
    weights["layer.bias"][3] = value
    save_file(weights, file)
    before = file.read_bytes()
    with pytest.raises(WeightsDoNotFit, match=r"--dtype float16: the weights layer.bias .* float16 ends at 6.55e\+04"):
        convert_weights(file, "float16")
    assert file.read_bytes() == before and [path.name for path in file.parent.iterdir()] == [file.name]


def test_what_float16_cannot_hold_bfloat16_can(file):
    weights = load_file(file)
    weights["layer.bias"][3] = 7e4
    save_file(weights, file)
    convert_weights(file, "bfloat16")
    assert load_file(file)["layer.bias"][3].item() == pytest.approx(7e4, rel=2.0**-8)
