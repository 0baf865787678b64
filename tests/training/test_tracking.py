"""Points of real runs: all there, none doubled, whatever happened to the run in between."""

import csv
import importlib.util
import json
import math
from collections import defaultdict

import pytest

from protein_model.training import tracking
from protein_model.training.checkpoints import CheckpointStore
from protein_model.training.tracking import TrackerError

EVERY_STEP = {"report_to": "tensorboard", "log_every_steps": 1}
TRAIN_TAGS = {
    "train/loss",
    "train/learning_rate",
    "train/gradient_norm",
    "train/residues_per_second",
    "train/memory_gib",
}

needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed"
)


def points(save_dir):
    """tag -> [(step, value)], as TensorBoard shows them; texts by their length."""
    from tensorboard.backend.event_processing.event_accumulator import TENSORS, EventAccumulator

    accumulator = EventAccumulator(str(save_dir / "tensorboard"), size_guidance={"scalars": 0, TENSORS: 0})
    accumulator.Reload()
    found = {tag: [(e.step, e.value) for e in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]}
    for tag in accumulator.Tags()["tensors"]:
        text = [(e.step, e.tensor_proto.string_val[0].decode()) for e in accumulator.Tensors(tag)]
        found[tag.removesuffix("/text_summary")] = text
    return found


def steps(found, tag):
    return [step for step, _ in found[tag]]


class Killed(Exception):
    pass


def die_after(trainer, step):
    """Let a run end without any farewell once it has logged this step."""
    log = trainer.tracking.step

    def log_and_die(number, *values):
        log(number, *values)
        if number == step:
            raise Killed

    trainer.tracking.step = log_and_die
    trainer.tracking.close = lambda: None
    with pytest.raises(Killed):
        trainer.fit()


@needs_tensorboard
def test_a_run_logs_its_settings_steps_epochs_and_designs(start):
    trainer = start(epochs=2, **EVERY_STEP)
    trainer.fit()
    per_epoch = trainer.progress.steps_per_epoch
    found = points(trainer.save_dir)
    inner = [step for step in range(1, 2 * per_epoch + 1) if step % per_epoch]
    for tag in TRAIN_TAGS:
        assert steps(found, tag) == inner, tag
        assert all(math.isfinite(value) for _, value in found[tag])
    entries = trainer.history.epochs
    assert found["epoch/validation_loss"] == [
        (entry["step"], pytest.approx(entry["validation_loss"])) for entry in entries
    ]
    assert {tag.removeprefix("epoch/") for tag in found if tag.startswith("epoch/")} >= {
        *("train_loss", "one_shot_perplexity", "one_shot_recovery", "learning_rate", "residues_per_second", "number")
    }
    [(_, settings)] = found["settings"]
    assert '"hidden_dim": 16' in settings
    assert steps(found, "designs") == [per_epoch, 2 * per_epoch]
    assert "native" in found["designs"][0][1] and "predicted" in found["designs"][0][1]


@needs_tensorboard
def test_only_every_so_many_steps_are_logged(start):
    trainer = start(epochs=2, report_to="tensorboard", log_every_steps=3)
    trainer.fit()
    per_epoch = trainer.progress.steps_per_epoch
    expected = [step for step in range(3, 2 * per_epoch + 1, 3) if step % per_epoch]
    assert steps(points(trainer.save_dir), "train/loss") == expected


@needs_tensorboard
def test_killed_resumed_and_continued_it_is_one_run_with_every_point_once(start):
    """Died three steps after its last checkpoint, resumed, died again, resumed with more epochs."""
    whole = start(save_dir="whole", epochs=4, **EVERY_STEP)
    whole.fit()
    first = start(save_dir="part", epochs=3, **EVERY_STEP)
    per_epoch = first.progress.steps_per_epoch
    assert per_epoch >= 3
    die_after(first, per_epoch + 2)
    second = start(save_dir="part", resume_from="latest")
    assert second.progress.step == per_epoch
    die_after(second, 2 * per_epoch + 1)
    third = start(save_dir="part", resume_from="latest", epochs=4)
    third.fit()
    expected, found = points(whole.save_dir), points(third.save_dir)
    assert expected.keys() == found.keys()
    for tag in expected:
        assert steps(found, tag) == steps(expected, tag), tag
    assert [value for _, value in found["epoch/train_loss"]] == pytest.approx(third.history.column("train_loss"))
    # The files do hold the superseded points; it is the marks in them that take these out.
    events = list((third.save_dir / "tensorboard").iterdir())
    assert len(events) == 3


@needs_tensorboard
def test_going_back_to_an_older_checkpoint_takes_the_later_points_out(start):
    first = start(epochs=3, **EVERY_STEP)
    first.fit()
    per_epoch = first.progress.steps_per_epoch
    second = start(resume_from="checkpoint_epoch_1", epochs=2)
    second.fit()
    found = points(second.save_dir)
    assert steps(found, "epoch/number") == [per_epoch, 2 * per_epoch]
    assert max(steps(found, "train/loss")) < 2 * per_epoch


@needs_tensorboard
def test_an_epoch_whose_validation_was_interrupted_is_logged_once(start):
    trainer = start(epochs=2, **EVERY_STEP)
    trainer.tracking.start(trainer.settings.to_dict(), 0, False, False)
    per_epoch = trainer.progress.steps_per_epoch
    entry = {"epoch": 1, "step": per_epoch, "validation_loss": 2.5}
    trainer.tracking.step(per_epoch - 1, False, 2.0, 1e-3, 1.0, 100.0)
    trainer.tracking.epoch(entry, "")  # and killed before the epoch's checkpoint was committed
    again = start(save_dir="run", epochs=2, **EVERY_STEP)
    again.tracking.start(again.settings.to_dict(), per_epoch, True, False)
    again.tracking.epoch(entry, "")
    again.tracking.close()
    found = points(trainer.save_dir)
    assert found["epoch/validation_loss"] == [(per_epoch, 2.5)]
    assert steps(found, "train/loss") == [per_epoch - 1]


@needs_tensorboard
def test_a_rollback_takes_back_what_was_logged(start, monkeypatch):
    trainer = start(epochs=2, on_divergence="rollback", **EVERY_STEP)
    per_epoch = trainer.progress.steps_per_epoch
    update = trainer.steps.update
    bad = iter([True])

    def spoiled(rate, stop_requested, left_out):
        if trainer.progress.step == per_epoch + 1 and not left_out and next(bad, False):
            for parameter in trainer.steps.parameters:
                parameter.grad.fill_(float("nan"))
        return update(rate, stop_requested, left_out)

    trainer.steps.update = spoiled
    trainer.fit()
    assert trainer.history.divergences
    found = points(trainer.save_dir)
    inner = [step for step in range(1, 2 * per_epoch + 1) if step % per_epoch]
    assert [step for step in steps(found, "train/loss") if step != per_epoch + 2] == [
        step for step in inner if step != per_epoch + 2
    ]


@pytest.mark.parametrize("name", ["trackio", "wandb", "tensorboard"])
def test_a_missing_package_is_said_before_anything_is_done(start, monkeypatch, name, tmp_path):
    real = importlib.util.find_spec
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda asked: None if asked == name else real(asked))
    with pytest.raises(TrackerError, match=rf"--report_to {name}: .* not installed; pip install {name}"):
        start(report_to=name, save_dir="refused")
    assert not (tmp_path / "refused" / "settings.json").exists()


@needs_tensorboard
def test_a_tracker_that_fails_does_not_stop_the_run(start, capsys):
    trainer = start(epochs=2, **EVERY_STEP)
    calls = []

    def broken(values, step):
        if step == 0:  # the settings, when the run begins
            return
        calls.append(step)
        raise OSError("No space left on device")

    trainer.accelerator.log = broken
    trainer.fit()
    assert len(calls) == 1  # one warning, then silence
    assert capsys.readouterr().out.count("WARNING: --report_to tensorboard: OSError: No space left on device") == 1
    assert len(trainer.history.epochs) == 2


def logged_by_trackio(run):
    from trackio.sqlite_storage import SQLiteStorage

    found = defaultdict(list)
    for entry in SQLiteStorage.get_logs(tracking.PROJECT, run):
        for name, value in entry.items():
            found[name].append((entry["step"], value))
    return found


@pytest.mark.skipif(importlib.util.find_spec("trackio") is None, reason="trackio is not installed")
def test_trackio_has_every_point_once_too(start, monkeypatch, tmp_path):
    monkeypatch.setattr("trackio.utils.TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "trackio")
    first = start(epochs=2, report_to="trackio", log_every_steps=1)
    per_epoch = first.progress.steps_per_epoch
    die_after(first, per_epoch + 2)
    for tracker in first.accelerator.trackers:  # what it has sent stays; only the trainer is gone
        tracker.finish()
    second = start(resume_from="latest")
    second.fit()
    second.tracking.close()
    found = logged_by_trackio(json.loads((second.save_dir / "tracking.json").read_text())["run"])
    assert [step for step, _ in found["train/loss"]] == [s for s in range(1, 2 * per_epoch + 1) if s % per_epoch]
    assert [step for step, _ in found["epoch/number"]] == [per_epoch, 2 * per_epoch]


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_wandb_writes_a_run_offline(start, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    trainer = start(epochs=1, report_to="wandb", log_every_steps=1)
    trainer.fit()
    trainer.tracking.close()
    assert list((trainer.save_dir / "wandb").glob("offline-run-*/run-*.wandb"))


@needs_tensorboard
def test_a_tracker_that_cannot_begin_stops_a_new_run_but_not_one_that_goes_on(start, capsys, monkeypatch):
    def refuse(*values):
        raise ConnectionError("no credentials")

    monkeypatch.setattr("accelerate.Accelerator.init_trackers", refuse)
    with pytest.raises(TrackerError, match="--report_to tensorboard: ConnectionError: no credentials"):
        start(save_dir="new", **EVERY_STEP).fit()
    start(epochs=1).fit()
    start(resume_from="latest", epochs=2, **EVERY_STEP).fit()
    assert "WARNING: --report_to tensorboard: ConnectionError: no credentials. Nothing more" in capsys.readouterr().out


def test_history_is_also_a_table(start):
    trainer = start(epochs=3)
    trainer.fit()
    with (trainer.save_dir / "history.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [{k: float(v) for k, v in row.items() if v} for row in rows] == trainer.history.epochs


def test_the_log_file_has_what_was_said_with_dates_over_all_launches(start, capsys):
    first = start(epochs=1)
    first.fit()
    second = start(resume_from="latest", epochs=2)
    second.fit()
    said = [line for line in capsys.readouterr().out.splitlines() if line]
    logged = [line for line in (second.save_dir / "train.log").read_text().splitlines() if line[21:]]
    assert [line[21:] for line in logged] == said
    assert all(line[:4].isdigit() and line[10] == " " and line[13] == ":" for line in logged)
    assert sum("Resumed from" in line for line in logged) == 1


@pytest.mark.proof
@needs_tensorboard
def test_a_run_that_is_really_killed_is_one_run_in_tensorboard(launch, tmp_path):
    """SIGKILL of the real program, twice, then more epochs; points counted in the event files."""
    options = ["--report_to", "tensorboard", "--log_every_steps", "1", "--save_every_steps", "2"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    launch("--save_dir", str(whole), *options, "--epochs", "4")
    for wanted in (2, 5):

        def enough(wanted=wanted):
            return any(
                int(path.name.rpartition("_")[2]) >= wanted
                for path in CheckpointStore(killed).checkpoints()
                if "step" in path.name
            )

        launch(
            *("--save_dir", str(killed), *options, "--resume_from", "latest"),
            first=not CheckpointStore(killed).checkpoints(),
            kill_when=enough,
        )
    launch("--save_dir", str(killed), "--resume_from", "latest", "--epochs", "4")
    expected, found = points(whole), points(killed)
    count = 0
    for tag in expected:
        assert steps(found, tag) == steps(expected, tag), tag
        count += len(found[tag])
    print(f"{count} points under {len(expected)} tags, each once")
