"""FSDP2: which launches are refused, and runs that are sharded, or were, against runs that are not."""

import json

import pytest
import torch
from accelerate import Accelerator

from protein_model.training.checkpoints import CheckpointStore, verify
from protein_model.training.launching import LaunchError
from protein_model.training.sharding import CPU_SHARDING, divide_on_cpus, sharding_of_launch

from .comparison import final_state, history

RESULTS = ("train_loss", "validation_loss", "one_shot_perplexity")  # recoveries may turn on the last bit of a logit


def close(expected, found):
    """Epochs of two runs are the same up to rounding."""
    assert [epoch["step"] for epoch in found] == [epoch["step"] for epoch in expected]
    for one, other in zip(expected, found, strict=True):
        assert {name: other[name] for name in RESULTS} == pytest.approx({name: one[name] for name in RESULTS}, rel=1e-5)


@pytest.mark.skipif(not CPU_SHARDING, reason="this torch shards on GPUs only")
def test_a_sharded_run_is_the_one_that_it_would_be_elsewhere(launch, start, tmp_path):
    """Two processes with accumulation against one; stopped, and gone on with in a launch of either kind."""
    sharded, alone = tmp_path / "sharded", tmp_path / "alone"
    options = ("--gradient_accumulation_steps", "2", "--save_every_steps", "3")
    output, _ = launch("--save_dir", str(sharded), *options, processes=2, config="fsdp2_8.yaml")
    assert "2 processes on cpu, each with a slice of the model (FSDP2)" in output

    start(save_dir="alone", gradient_accumulation_steps=4).fit()
    close(history(alone), history(sharded))
    expected, found = final_state(alone), final_state(sharded)
    assert [(name, value.shape, value.dtype) for name, value in expected.items()] == [
        (name, value.shape, value.dtype) for name, value in found.items()
    ]
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5, msg=name)
    for path in CheckpointStore(sharded).resumable():
        same = alone / ("best_model" if path.name == "best_model" else "checkpoint_epoch_3")
        assert verify(path).files.keys() == verify(same).files.keys()
        described, config = (json.loads((path / name).read_text()) for name in ("settings.json", "config.json"))
        assert described["shards"] == 4 and config == json.loads((same / "config.json").read_text())

    middle = str(sharded / "checkpoint_step_3")
    launch("--resume_from", middle, "--save_dir", str(tmp_path / "again"), processes=2, config="fsdp2_8.yaml")
    assert history(tmp_path / "again") == history(sharded)
    found, again = final_state(sharded), final_state(tmp_path / "again")
    assert all(torch.equal(again[name], value) for name, value in found.items()) and again.keys() == found.keys()

    start(resume_from=middle, save_dir="one").fit()
    close(history(sharded), history(tmp_path / "one"))


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed, .* with fsdp2_8.yaml for a model that does not fit"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "Megatron-LM, .* Launch with accelerate_configs/multi_gpu_8.yaml"),
        ({"ACCELERATE_USE_FSDP": "true"}, "FSDP version 1, .* set fsdp_version: 2"),
        ({"FSDP_OFFLOAD_PARAMS": "true"}, "fsdp_offload_params in the launch config cannot be used"),
        ({"FSDP_ACTIVATION_CHECKPOINTING": "true"}, "fsdp_activation_checkpointing .* other dropout"),
        ({"FSDP_IGNORED_MODULES": "encoder"}, "fsdp_ignored_modules .* would not be averaged"),
        ({"FSDP_AUTO_WRAP_POLICY": "SIZE_BASED_WRAP"}, "Use TRANSFORMER_BASED_WRAP"),
    ],
)
def test_what_is_not_possible_is_refused_before_anything_is_done(start, monkeypatch, tmp_path, variables, message):
    fsdp2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    if next(iter(variables)).startswith("ACCELERATE_"):
        fsdp2 = {}
    for name, value in {**fsdp2, **variables}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LaunchError, match=message):
        start(save_dir="refused")
    assert not (tmp_path / "refused").exists()


def test_deterministic_is_refused(start, monkeypatch):
    monkeypatch.setattr(Accelerator, "is_fsdp2", True)
    with pytest.raises(LaunchError, match=r"give --deterministic False, or launch with .*multi_gpu_8\.yaml"):
        start(deterministic=True)


def test_one_process_holds_everything(start, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    trainer = start(epochs=1)
    assert not trainer.accelerator.is_fsdp2
    assert trainer.fit().best_model is not None


def test_what_is_decided_here_and_not_by_the_launch(monkeypatch):
    """Accelerate would cast inputs to 16 bits, and coordinates would be off by half an angstrom."""
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "true")
    plugin = sharding_of_launch()
    plugin.set_mixed_precision("bf16")
    assert plugin.mixed_precision_policy.param_dtype is None
    assert not plugin.cpu_ram_efficient_loading


def test_processes_on_cpus_beside_gpus_are_told_to_hide_them(start, monkeypatch):
    accelerator = start().accelerator
    monkeypatch.setattr(type(accelerator), "num_processes", 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    divide_on_cpus(accelerator, None)  # nothing to do
    with pytest.raises(LaunchError, match="set CUDA_VISIBLE_DEVICES="):
        divide_on_cpus(accelerator, object())
