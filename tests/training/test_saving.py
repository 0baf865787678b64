"""Checkpoints are written beside the training, from a copy; a write that fails costs nothing that was saved before."""

import errno
import resource
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from protein_model.training import checkpoints
from protein_model.training.checkpoints import CheckpointError, CheckpointStore, verify
from protein_model.training.saving import RunState, Snapshots

from .comparison import assert_same, state_of


def state(value):
    tensors = {"weight": torch.full((3, 2), float(value)), "step": torch.tensor(float(value))}
    optimizer = {"state": {0: dict(tensors)}, "param_groups": [{"lr": value, "params": [0]}]}
    return RunState(tensors, optimizer, None, {"progress": {"step": value, "list": [value]}, "average": tensors})


def test_a_snapshot_does_not_change_with_what_it_was_taken_from():
    snapshots, live = Snapshots(), state(1)
    taken = snapshots.take(live)
    for tensor in (live.model["weight"], live.optimizer["state"][0]["step"]):
        tensor.zero_()
    live.registered["progress"]["list"].append(7)
    assert (taken.model["weight"] == 1).all() and taken.optimizer["state"][0]["step"] == 1
    assert taken.registered["progress"] == {"step": 1, "list": [1]}
    buffer = taken.model["weight"].data_ptr()
    again = snapshots.take(state(2))
    assert again.model["weight"].data_ptr() == buffer and (again.model["weight"] == 2).all()
    assert again.optimizer["param_groups"] == [{"lr": 2, "params": [0]}]


def test_what_is_written_is_the_state_at_the_time_of_the_save(start):
    """Training goes on while an artificially slow write is under way."""
    trainer = start(epochs=2, save_every_steps=1)
    expected = {}
    save, write = trainer._save, trainer.writer._write

    def remember(names):
        save(names)
        for name in names:
            expected[name] = {key: value.clone() for key, value in trainer.network.state_dict().items()}

    def slow(*arguments):
        torch.manual_seed(0)  # the thread must not disturb the generator of the training either
        for _ in range(20):
            torch.randn(100, 100) @ torch.randn(100, 100)
        write(*arguments)

    trainer._save, trainer.writer._write = remember, slow
    trainer.fit()
    for path in CheckpointStore(trainer.save_dir).checkpoints():
        found = load_file(path / "state" / "model.safetensors")
        assert all(torch.equal(found[key], value) for key, value in expected[path.name].items()), path.name


def test_a_full_disk_is_said_and_training_goes_on(start, capsys, monkeypatch):
    """Only the save of the first epoch fails, as on a disk that is full for a while."""
    whole = start(save_dir="whole")
    whole.fit()
    trainer = start(save_dir="run")
    real, failed = checkpoints.flush_file, []

    def full(path):
        if trainer.progress.epoch == 1 and len(failed) < 2 and "incomplete" in str(path):
            failed.append(path)
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path)

    monkeypatch.setattr(checkpoints, "flush_file", full)
    save, saved = trainer._save, []
    trainer._save = lambda names: (save(names), trainer.writer.wait(), saved.append(names))
    trainer.fit()
    said = capsys.readouterr().out
    assert "could not be saved ([Errno 28] No space left on device); earlier checkpoints are untouched" in said
    names = {path.name for path in CheckpointStore(trainer.save_dir).checkpoints()}
    assert names == {"checkpoint_epoch_2", "checkpoint_epoch_3"}
    assert not list(trainer.save_dir.glob(".incomplete*"))
    assert_same(state_of(trainer), state_of(whole))


def test_a_run_whose_end_cannot_be_saved_does_not_look_finished(start, capsys):
    """Real write errors: no file may grow beyond a few kilobytes."""
    trainer = start(epochs=1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match="the end of the run is not saved"):
            trainer.fit()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not CheckpointStore(trainer.save_dir).resumable()


def test_two_runs_never_write_into_one_folder(start, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "LOCK_SECONDS", 0.1)
    (tmp_path / "run").mkdir()
    program = (
        "import sys, filelock\n"
        "lock = filelock.FileLock(sys.argv[1]); lock.acquire()\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "run" / checkpoints.LOCK_FILE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout.readline() == "held\n"
    with pytest.raises(CheckpointError, match="another run is writing checkpoints there"):
        start()
    other.kill()  # a killed run holds nothing
    other.wait()
    start()


def test_a_file_in_the_place_of_the_save_folder_is_one_clear_message(start, tmp_path):
    (tmp_path / "run").write_text("something else")
    with pytest.raises(CheckpointError, match=r"--save_dir .*run"):
        start()


def test_every_checkpoint_of_a_run_verifies(start):
    trainer = start(epochs=2, save_every_steps=2)
    trainer.fit()
    found = CheckpointStore(trainer.save_dir).resumable()
    assert len(found) >= 3
    for path in found:
        assert verify(path).registered == list(trainer.registered.by_name())
