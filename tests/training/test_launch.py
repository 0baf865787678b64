"""Real launches: several processes against one, kills at any moment, the messages a person gets."""

import json
import random

import pytest
import torch

from protein_model.training.checkpoints import CheckpointStore, read_manifest

from .comparison import final_state, history


def test_two_processes_see_what_one_sees(launch, tmp_path):
    """Same global batches, order and randomness; losses equal up to the order of summation."""
    one, two = tmp_path / "one", tmp_path / "two"
    launch("--save_dir", str(one), "--gradient_accumulation_steps", "2")
    output, _ = launch("--save_dir", str(two), processes=2)
    assert "2 processes" in output
    assert output.count("epoch 1/3  train loss") == 1  # only the main process speaks
    for expected, found in zip(history(one), history(two), strict=True):
        assert found == pytest.approx(expected, rel=1e-4)
    assert json.loads((two / "settings.json").read_text())["shards"] == 2


@pytest.mark.proof
def test_deterministic_runs_are_the_same_bit_for_bit_on_one_process_and_on_two(launch, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    launch("--save_dir", str(one), "--gradient_accumulation_steps", "2", "--deterministic")
    launch("--save_dir", str(two), "--deterministic", processes=2)
    assert history(one) == history(two)
    expected, found = final_state(one), final_state(two)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name


@pytest.mark.proof
def test_a_run_of_two_processes_goes_on_with_one_and_back(launch, tmp_path):
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    launch("--save_dir", str(whole), processes=2)
    launch(
        "--save_dir",
        str(moved),
        "--save_every_steps",
        "2",
        "--epochs",
        "3",
        processes=2,
        kill_when=lambda: bool(CheckpointStore(moved).checkpoints()),
    )
    assert CheckpointStore(moved).checkpoints()
    output, _ = launch("--save_dir", str(moved), "--resume_from", "latest", "--epochs", "3")
    assert "Resumed from" in output
    for expected, found in zip(history(whole), history(moved), strict=True):
        assert found == pytest.approx(expected, rel=1e-4)


def test_killed_at_random_moments_the_run_ends_bitwise_as_if_it_had_not_been(launch, tmp_path):
    """SIGKILL of every process, several times, also while a checkpoint is being written."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    launch("--save_dir", str(whole), "--save_every_steps", "1")
    randomness = random.Random(0)
    kills = 0
    for _ in range(3):
        before = newest_step(killed)
        wait = randomness.randint(2, 4)
        _, status = launch(
            *("--save_dir", str(killed), "--save_every_steps", "1", "--resume_from", "latest"),
            first=not CheckpointStore(killed).checkpoints(),
            kill_when=lambda before=before, wait=wait: (
                newest_step(killed) >= before + wait
                or (
                    any(path.name.startswith(".incomplete") for path in killed.glob(".*"))
                    and newest_step(killed) > before
                )
            ),
        )
        kills += status != 0
    assert kills >= 2
    launch("--save_dir", str(killed), "--resume_from", "latest", "--save_every_steps", "1")
    assert history(killed) == history(whole)
    expected, found = final_state(whole), final_state(killed)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name
    assert not list(killed.glob(".incomplete*"))


def newest_step(folder):
    steps = [
        read_manifest(path).step for path in CheckpointStore(folder).checkpoints() if (path / "manifest.json").exists()
    ]
    return max(steps, default=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pdb_path", "no_such_folder"], "no_such_folder"),
        (["--batch_size", "0"], "--batch_size must be at least 1"),
        (["--resume_from", "checkpoint_epoch_175"], "checkpoint_epoch_175: there is no such checkpoint"),
    ],
)
def test_what_cannot_work_is_one_message_and_status_2(launch, tmp_path, options, message):
    output, status = launch("--save_dir", str(tmp_path / "run"), *options, check=False)
    assert status == 2
    assert "Traceback" not in output
    [line] = [line for line in output.splitlines() if line.startswith("error: ")]
    assert message in line
