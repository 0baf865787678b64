"""The copy of the checkpoints at an address: complete, good for a resume elsewhere, and never in the training's way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import protein_model.data.remote as remote
import protein_model.training.mirror as mirror
from protein_model.training.checkpoints import CheckpointError, CheckpointStore, verify
from protein_model.training.mirror import Mirror
from protein_model.training.remote_checkpoints import fetch_checkpoint, split_address

from .comparison import assert_same, state_of

NAMES = ["best_model", "checkpoint_epoch_1", "checkpoint_epoch_2"]


@pytest.fixture(autouse=True)
def memory(monkeypatch) -> Iterator[MemoryFileSystem]:
    """The memory file system, empty before and after; and short waits."""
    monkeypatch.setattr(mirror, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(remote, "FIRST_WAIT_SECONDS", 0.001)
    system = fsspec.filesystem("memory")
    yield system
    for path in system.ls("/", detail=False):
        system.rm(path, recursive=True)


class Unreliable:
    """Makes the memory file system fail so many times, half-way through a file."""

    def __init__(self, patch: pytest.MonkeyPatch, failures: int):
        self.failures = failures
        real = MemoryFileSystem.put_file

        def put_file(system: MemoryFileSystem, path: str, target: str, **options: object) -> None:
            if self.failures:
                self.failures -= 1
                system.pipe_file(target, Path(path).read_bytes()[:10])
                raise ConnectionResetError("the connection broke")
            real(system, path, target, **options)

        patch.setattr(MemoryFileSystem, "put_file", put_file)


def copied(system: MemoryFileSystem, folder: str = "/lab/run") -> list[str]:
    return sorted(path.rpartition("/")[2] for path in system.ls(folder, detail=False))


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def run(finished) -> CheckpointStore:
    """A finished run of two epochs, not copied yet."""
    return CheckpointStore(finished.save_dir)


def copy_all(store: CheckpointStore, address: str, finished: bool = True) -> list[str]:
    said: list[str] = []
    copier = Mirror(store, address, said.append, first_wait_seconds=0.01)
    copier.start()
    copier.close(finished, patience_seconds=20.0 if finished else 1.0)
    return [line for line in said if not line.startswith("Copying ")]


def test_the_copy_is_what_the_save_folder_has_and_a_run_goes_on_from_it_elsewhere(start, memory, tmp_path):
    options = {"save_every_steps": 2, "keep_last": 2, "mirror_checkpoints_to": "memory://lab/run"}
    whole = start(save_dir="whole", **{**options, "mirror_checkpoints_to": None})
    whole.fit()
    first = start(save_dir="first", **options)
    real_end = first._end_epoch

    def end_and_stop(result):
        real_end(result)
        if first.progress.epoch == 2:
            raise KeyboardInterrupt

    first._end_epoch = end_and_stop
    with pytest.raises(KeyboardInterrupt):
        first.fit()
    local = {path.name for path in CheckpointStore(first.save_dir).resumable()}
    assert "checkpoint_epoch_2" in local
    assert set(copied(memory)) == local  # what was removed here is removed there
    assert fetch_checkpoint("memory://lab/run/best_model", tmp_path / "fetched", print) is not None
    verify(tmp_path / "fetched" / "best_model")
    # A machine that has nothing of it, and the command that the run began with.
    second = start(save_dir="second", resume_from="latest", mirror_checkpoints_to="memory://lab/run")
    assert second._saved.point.folder.name == "checkpoint_epoch_2"
    assert files_below(second.save_dir / "best_model") == files_below(first.save_dir / "best_model")
    second.fit()
    assert_same(state_of(second), state_of(whole))
    assert "checkpoint_epoch_3" in copied(memory)
    third = start(save_dir="third", resume_from="memory://lab/run")
    assert third.progress.epoch == 3


def test_a_dry_run_fetches_nothing_into_the_save_folder(start, memory, run, tmp_path):
    copy_all(run, "memory://lab/run")
    trainer = start(save_dir="other", resume_from="memory://lab/run", dry_run=True)
    assert trainer.progress.epoch == 2
    assert not (tmp_path / "other").exists()


def test_no_checkpoint_yet_is_a_start_from_the_beginning(start, memory, capsys):
    trainer = start(resume_from="latest", mirror_checkpoints_to="memory://lab/none", hidden_dim=8, epochs=1)
    assert trainer.progress.step == 0
    assert "memory://lab/none has no checkpoint yet: starting from the beginning" in capsys.readouterr().out


@pytest.mark.parametrize("failures", [1, 5, 12])
def test_failures_are_told_and_tried_again(run, memory, monkeypatch, failures):
    Unreliable(monkeypatch, failures)
    said = copy_all(run, "memory://lab/run")
    warnings = [line for line in said if "WARNING: checkpoints cannot be copied" in line]
    assert 1 <= len(warnings) <= failures
    assert "ConnectionResetError: the connection broke" in said[0]
    assert copied(memory) == sorted(path.name for path in run.resumable())
    for path in run.resumable():
        for name, content in files_below(path).items():
            assert memory.cat_file(f"/lab/run/{path.name}/{name}") == content


def test_training_goes_on_where_nothing_can_be_copied(start, memory, monkeypatch, capsys):
    monkeypatch.setattr(mirror, "PATIENCE_AT_THE_END_SECONDS", 0.5)
    unreliable = Unreliable(monkeypatch, 10**9)
    trainer = start(mirror_checkpoints_to="memory://lab/run", epochs=2)
    trainer.fit()
    shown = capsys.readouterr().out
    assert "WARNING: not copied to memory://lab/run: ConnectionResetError: the connection broke: " in shown
    assert "the next launch copies them" in shown
    trainer.store.unlock()
    unreliable.failures = 0
    start(resume_from="latest").fit()  # with nothing left to train
    assert copied(memory) == NAMES


def test_a_copy_that_was_interrupted_is_no_checkpoint(memory, run, tmp_path):
    copy_all(run, "memory://lab/run")
    newest = run.checkpoints()[0]
    memory.rm_file(f"/lab/run/{newest.name}/manifest.json")
    said: list[str] = []
    found = fetch_checkpoint("memory://lab/run/latest", tmp_path / "here", said.append)
    assert found is not None and found.name != newest.name
    assert any(f"{newest.name}/manifest.json: is missing" in line for line in said)


def test_damage_is_stepped_over_and_named(memory, run, tmp_path):
    copy_all(run, "memory://lab/run")
    order = [path.name for path in run.resumable()]
    path = f"/lab/run/{order[0]}/model.safetensors"
    content = bytearray(memory.cat_file(path))
    content[-1] ^= 1
    memory.pipe_file(path, bytes(content))
    said: list[str] = []
    found = fetch_checkpoint("memory://lab/run", tmp_path / "here", said.append)
    assert found is not None and found.name == order[1]
    assert files_below(found) == files_below(run.folder / order[1])
    [warning] = [line for line in said if line.startswith("WARNING")]
    assert order[0] in warning and "does not match its checksum" in warning
    assert not list((tmp_path / "here").glob(".incomplete*"))
    with pytest.raises(CheckpointError, match="no usable checkpoint"):
        fetch_checkpoint(f"memory://lab/run/{order[0]}", tmp_path / "here", said.append)


def test_a_manifest_cannot_write_elsewhere(memory, run, tmp_path, monkeypatch):
    copy_all(run, "memory://lab/run")
    name = run.checkpoints()[0].name
    document = json.loads((run.folder / name / "manifest.json").read_text())
    document["checkpoint"]["files"]["../../evil"] = [0, ""]
    canonical = json.dumps(document["checkpoint"], sort_keys=True, separators=(",", ":")).encode()
    document["sha256"] = hashlib.sha256(canonical).hexdigest()
    memory.pipe_file(f"/lab/run/{name}/manifest.json", json.dumps(document).encode())
    with pytest.raises(CheckpointError, match=r"names a file '\.\./\.\./evil' outside of its folder"):
        fetch_checkpoint(f"memory://lab/run/{name}", tmp_path / "a" / "b", print)
    assert not list(tmp_path.rglob("evil"))


def test_checkpoints_of_another_run_are_not_replaced(memory, run, start, tmp_path):
    copy_all(run, "memory://lab/run")
    before = {path: memory.cat_file(path) for path in memory.find("/lab/run")}
    other = start(save_dir="other", epochs=1, seed=5)
    other.fit()
    said = copy_all(CheckpointStore(other.save_dir), "memory://lab/run", finished=False)
    assert any("there is of another run; give another --mirror_checkpoints_to" in line for line in said)
    assert {path: memory.cat_file(path) for path in memory.find("/lab/run")} == before
    with pytest.raises(CheckpointError, match="is another checkpoint than memory://lab/run/checkpoint_epoch_1"):
        fetch_checkpoint("memory://lab/run/checkpoint_epoch_1", other.save_dir, print)


def test_what_was_copied_is_not_copied_again(memory, run):
    assert sum(line.startswith("Copied") for line in copy_all(run, "memory://lab/run")) == len(run.resumable())
    assert copy_all(run, "memory://lab/run") == []
    (run.folder / "mirror.json").unlink()
    assert copy_all(run, "memory://lab/run") == []  # by what is there


def test_what_is_committed_while_the_last_copy_is_made_is_copied_too(run, memory, monkeypatch):
    late = run.checkpoints()[0]
    late.rename(run.folder / "later")
    said: list[str] = []
    copier = Mirror(run, "memory://lab/run", said.append, first_wait_seconds=0.01)
    real = MemoryFileSystem.put_file

    def put_file(system: MemoryFileSystem, path: str, target: str, **options: object) -> None:
        real(system, path, target, **options)
        if (run.folder / "later").exists() and len(copied(memory)) == len(run.resumable()):
            copier._closing = True
            (run.folder / "later").rename(late)

    monkeypatch.setattr(MemoryFileSystem, "put_file", put_file)
    copier.start()
    copier._thread.join(20)
    assert not copier._thread.is_alive()
    assert copied(memory) == sorted(path.name for path in run.resumable())


def test_a_folder_is_an_address_too(run, tmp_path):
    copy_all(run, mirror.mirror_address(str(tmp_path / "a copy")))
    for path in run.resumable():
        assert files_below(tmp_path / "a copy" / path.name) == files_below(path)


@pytest.mark.parametrize(
    ("address", "meaning"),
    [
        ("s3://b/run", ("s3://b/run", None)),
        ("s3://b/run/", ("s3://b/run", None)),
        ("s3://b/run/latest", ("s3://b/run", None)),
        ("s3://b/run/checkpoint_epoch_3/", ("s3://b/run", "checkpoint_epoch_3")),
        ("s3://b/best_model", ("s3://b", "best_model")),
    ],
)
def test_what_an_address_means(address, meaning):
    assert split_address(address) == meaning
