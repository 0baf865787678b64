"""Checkpoints are committed or do not exist; damage is noticed, named and stepped over; nothing in them runs code."""

import json
import os
import pickle
import random
import shutil

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protein_model.training import checkpoints
from protein_model.training.checkpoints import CheckpointError, CheckpointStore, DamagedCheckpoint, locate, verify


def commit(store: CheckpointStore, name: str, step: int, epoch: int = 0):
    temporary = store.begin(name)
    torch.save({"step": step, "weights": torch.full((50,), float(step))}, temporary / "state" / "optimizer.bin")
    torch.save({"step": step}, temporary / "state" / "custom_checkpoint_0.pkl")
    (temporary / "config.json").write_text(json.dumps({"step": step}))
    return store.commit(temporary, step, epoch, ["progress"], {"torch": "x"})


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(tmp_path / "run")


def test_a_committed_checkpoint_verifies_and_tells_what_it_is(store):
    folder = commit(store, "checkpoint_epoch_3", 30, 3)
    manifest = verify(folder)
    assert (manifest.step, manifest.epoch, manifest.registered) == (30, 3, ["progress"])
    assert set(manifest.files) == {"config.json", "state/optimizer.bin", "state/custom_checkpoint_0.pkl"}
    assert [path.name for path in store.folder.iterdir()] == ["checkpoint_epoch_3"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6))
def test_any_corruption_of_any_file_is_noticed(tmp_path, seed):
    randomness = random.Random(seed)
    store = CheckpointStore(tmp_path / f"run{seed}")
    folder = commit(store, "checkpoint_epoch_1", 10)
    other = commit(store, "checkpoint_epoch_2", 20)
    path = randomness.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    content = bytearray(path.read_bytes())
    kind = randomness.choice(["flip", "truncate", "delete", "swap", "extend"])
    if kind == "flip":
        content[randomness.randrange(len(content))] ^= 1 << randomness.randrange(8)
    elif kind == "truncate":
        del content[randomness.randrange(len(content)) :]
    elif kind == "extend":
        content += b" "
    elif kind == "swap":
        content = bytearray((other / path.relative_to(folder)).read_bytes())
    if kind == "delete":
        path.unlink()
    else:
        path.write_bytes(content)
    swapped_manifest = path.name == "manifest.json" and kind == "swap"
    trailing_blank = path.name == "manifest.json" and kind == "extend"
    if trailing_blank:  # means the same
        verify(folder)
        return
    with pytest.raises(DamagedCheckpoint) as caught:
        verify(folder)
    assert str(folder) in str(caught.value)
    if not swapped_manifest:
        assert path.name in str(caught.value)
    shutil.rmtree(store.folder)


def test_damage_is_stepped_over_to_the_newest_good_one(store):
    commit(store, "checkpoint_epoch_1", 10, 1)
    commit(store, "checkpoint_epoch_2", 20, 2)
    newest = commit(store, "checkpoint_epoch_3", 30, 3)
    (newest / "state" / "optimizer.bin").write_bytes(b"nonsense")
    for asked in ("latest", str(newest), str(store.folder), newest.name):
        point = locate(asked, store.folder)
        assert point.folder.name == "checkpoint_epoch_2"
        assert point.steps_lost == 10
        assert "optimizer.bin" in point.problems[0]


@pytest.mark.parametrize("newest", ["checkpoint_epoch_3", "checkpoint_step_25", "best_model"])
def test_a_checkpoint_with_a_damaged_manifest_is_named_when_it_is_stepped_over(store, newest):
    commit(store, "checkpoint_epoch_1", 10, 1)
    commit(store, "checkpoint_epoch_2", 20, 2)
    (commit(store, newest, 30, 3) / "manifest.json").write_text("{")
    point = locate("latest", store.folder)
    assert point.folder.name == "checkpoint_epoch_2"
    assert [problem for problem in point.problems if f"{newest}/manifest.json" in problem]
    assert point.steps_lost is None


def test_nothing_usable_is_an_error_and_never_a_fresh_start(store):
    folder = commit(store, "checkpoint_epoch_1", 10)
    (folder / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"no usable checkpoint[\s\S]*manifest.json is missing"):
        locate("latest", store.folder)


def test_latest_of_an_empty_folder_is_a_fresh_start(store):
    assert locate("latest", store.folder) is None


def test_a_missing_checkpoint_is_named_with_those_that_exist(store):
    commit(store, "checkpoint_epoch_4", 40)
    with pytest.raises(
        CheckpointError, match=r"checkpoint_epoch_5: there is no such checkpoint; .* has checkpoint_epoch_4"
    ):
        locate("checkpoint_epoch_5", store.folder)


@pytest.mark.parametrize(("number", "more"), [(3, ""), (4, " and 1 older one"), (40, " and 37 older ones")])
def test_of_many_checkpoints_the_newest_are_named(store, number, more):
    for epoch in range(1, number + 1):
        commit(store, f"checkpoint_epoch_{epoch}", 10 * epoch)
    newest = ", ".join(f"checkpoint_epoch_{epoch}" for epoch in range(number, number - 3, -1))
    with pytest.raises(CheckpointError, match=rf" has {newest}{more}; give one of them, or latest$"):
        locate("nosuch", store.folder)


def test_the_best_model_is_found_by_name_and_counts_for_latest(store):
    commit(store, "checkpoint_epoch_4", 40)
    commit(store, "best_model", 50)
    assert locate("best_model", store.folder).folder.name == "best_model"
    assert locate("latest", store.folder).folder.name == "best_model"


def test_checkpoints_are_ordered_by_step_not_by_name(store):
    for name, step in (("checkpoint_epoch_9", 90), ("checkpoint_epoch_10", 100), ("checkpoint_step_95", 95)):
        commit(store, name, step)
    assert [path.name for path in store.checkpoints()] == [
        "checkpoint_epoch_10",
        "checkpoint_step_95",
        "checkpoint_epoch_9",
    ]


@pytest.mark.parametrize("stop_at", ["write", "manifest", "first rename", "second rename", "removal"])
def test_an_interrupted_commit_leaves_the_old_or_the_new_one(store, stop_at, monkeypatch):
    """Every point at which the process can be killed while `best_model` is replaced."""
    commit(store, "best_model", 10)
    renames = []

    class Killed(BaseException):
        pass

    real_rename, real_rmtree = os.rename, shutil.rmtree

    def rename(source, target):
        renames.append(target)
        if (stop_at, len(renames)) in {("first rename", 1), ("second rename", 2)}:
            raise Killed
        real_rename(source, target)

    def rmtree(path, **options):
        if stop_at == "removal" and ".replaced" in str(path):
            raise Killed
        real_rmtree(path, **options)

    def digest(path):
        if stop_at == "manifest":
            raise Killed
        return real_digest(path)

    real_digest = checkpoints.file_digest
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        patch.setattr(shutil, "rmtree", rmtree)
        patch.setattr(checkpoints, "file_digest", digest)
        with pytest.raises(Killed):
            if stop_at == "write":
                store.begin("best_model")
                raise Killed
            commit(store, "best_model", 20)
    store.recover()
    assert [path.name for path in store.folder.iterdir()] == ["best_model"]
    assert verify(store.folder / "best_model").step == (20 if stop_at == "removal" else 10)


def test_what_a_killed_run_was_writing_is_removed(store):
    commit(store, "checkpoint_epoch_1", 10, 1)
    store.begin("checkpoint_epoch_2")
    for name in ("history.json.tmp", ".loss_curve.png.123", "settings.json.tmp", "history.csv.tmp"):
        (store.folder / name).touch()
    store.recover()
    assert [path.name for path in store.folder.iterdir()] == ["checkpoint_epoch_1"]


def test_going_back_sets_later_checkpoints_aside_without_deleting_them(store):
    for epoch in (1, 2, 3):
        commit(store, f"checkpoint_epoch_{epoch}", epoch * 10, epoch)
    commit(store, "best_model", 30, 3)
    moved = store.set_aside_after(10)
    assert sorted(path.name for path in moved) == ["best_model", "checkpoint_epoch_2", "checkpoint_epoch_3"]
    assert locate("latest", store.folder).folder.name == "checkpoint_epoch_1"
    for path in moved:
        verify(path)


def test_retention(store):
    for epoch in range(1, 8):
        commit(store, f"checkpoint_epoch_{epoch}", epoch * 10, epoch)
        commit(store, f"checkpoint_step_{epoch * 10 + 5}", epoch * 10 + 5, epoch)
        store.prune(keep_last=None, keep_every=None)
    names = {path.name for path in store.checkpoints()}
    assert names == {f"checkpoint_epoch_{epoch}" for epoch in range(1, 8)} | {
        "checkpoint_step_65",
        "checkpoint_step_75",
    }
    store.prune(keep_last=3, keep_every=2)
    assert {path.name for path in store.checkpoints()} == {
        "checkpoint_step_75",
        "checkpoint_epoch_7",
        "checkpoint_step_65",
        "checkpoint_epoch_6",
        "checkpoint_epoch_4",
        "checkpoint_epoch_2",
    }


class Hostile:
    def __reduce__(self):
        return (os.system, ("touch HOSTILE_CODE_RAN",))


@pytest.mark.parametrize("name", ["custom_checkpoint_0.pkl", "optimizer.bin", "scaler.pt", "random_states_0.pkl"])
def test_a_pickle_that_runs_code_is_refused(store, name, tmp_path, monkeypatch):
    """Even where the manifest matches, because whoever writes a pickle can write a manifest."""
    monkeypatch.chdir(tmp_path)
    commit(store, "checkpoint_epoch_1", 10)
    temporary = store.begin("checkpoint_epoch_2")
    for file in ("custom_checkpoint_0.pkl", "optimizer.bin"):
        torch.save({}, temporary / "state" / file)
    with (temporary / "state" / name).open("wb") as handle:
        pickle.dump(Hostile(), handle)
    store.commit(temporary, 20, 2, ["progress"], {})
    point = locate("latest", store.folder)
    assert point.folder.name == "checkpoint_epoch_1"
    assert name in point.problems[0]
    assert not (tmp_path / "HOSTILE_CODE_RAN").exists()


def test_a_file_that_somebody_adds_is_refused(store):
    folder = commit(store, "checkpoint_epoch_1", 10)
    torch.save({}, folder / "state" / "random_states_0.pkl")
    with pytest.raises(DamagedCheckpoint, match=r"random_states_0\.pkl: is not part of this checkpoint"):
        verify(folder)


def test_a_manifest_of_another_checkpoint_does_not_hide_the_damage(store):
    commit(store, "checkpoint_epoch_1", 10, 1)
    second = commit(store, "checkpoint_epoch_2", 20, 2)
    third = commit(store, "checkpoint_epoch_3", 30, 3)
    first = store.folder / "checkpoint_epoch_1"
    shutil.copy(first / "manifest.json", third / "manifest.json")
    point = locate("latest", store.folder)
    assert point.folder == second
    assert [str(third) in problem for problem in point.problems] == [True]


def test_a_renamed_checkpoint_can_be_asked_for_but_is_not_taken_for_the_latest(store, tmp_path):
    older = commit(store, "checkpoint_epoch_1", 10, 1)
    newest = commit(store, "checkpoint_epoch_2", 20, 2)
    shutil.copytree(older, store.folder / "checkpoint_epoch_9")
    assert locate("latest", store.folder).folder == newest
    assert locate("checkpoint_epoch_9", store.folder).manifest.step == 10
