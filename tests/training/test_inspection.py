"""What is in a checkpoint, and whether it is whole."""

import json
import os
import pickle
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from protein_model.__main__ import main
from protein_model.training.checkpoints import CheckpointStore, locate
from protein_model.training.inspection import inspect_path
from protein_model.training.inspection_text import checkpoint_text, save_folder_text
from protein_model.training.interchange import export_checkpoint

ROOT = Path(__file__).resolve().parents[2]


def inspect(path, capsys):
    """Exit status and JSON of the command."""
    capsys.readouterr()
    status = main(["inspect", str(path), "--json"])
    out = capsys.readouterr().out
    return status, json.loads(out) if out else None


def told(report, finished):
    """Whatever a folder and a file must tell alike."""
    assert report["ok"] and report["problems"] == []
    assert (report["epoch"], report["step"]) == (2, finished.progress.step)
    assert (report["steps_per_epoch"], report["step_in_epoch"]) == (finished.data.plan.steps_per_epoch, 0)
    assert (report["shards"], report["seed"], report["processes"], report["mixed_precision"]) == (2, 0, 1, "no")
    assert [epoch["train_loss"] for epoch in report["epochs"]] == finished.history.column("train_loss")
    assert (report["best_loss"], report["best_epoch"]) == (finished.best.loss, finished.best.epoch)
    assert report["schedule"] == {
        "peak": 1e-3,
        "start_epoch": 0.0,
        "warmup_epochs": 1.0,
        "total_epochs": 2.0,
        "next_rate": finished.schedule.rate(finished.progress.step),
        "last_rate": finished.schedule.rate(finished.progress.step - 1),
    }
    assert report["parameters"] == sum(parameter.numel() for parameter in finished.network.parameters())
    assert report["config"]["hidden_dim"] == report["settings"]["hidden_dim"] == 16
    assert report["data"]["fingerprint"] == finished.data.cache.fingerprint
    assert report["versions"]["torch"] == torch.__version__


def test_a_folder_tells_everything(finished, capsys):
    folder = finished.save_dir / "checkpoint_epoch_2"
    status, report = inspect(folder, capsys)
    assert status == 0 and report["kind"] == "folder"
    told(report, finished)
    on_disk = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    assert {file["name"]: file["size"] for file in report["files"]} == on_disk
    assert report["size"] == sum(on_disk.values())


def test_a_file_tells_the_same(finished, tmp_path, capsys):
    file = tmp_path / "checkpoint_epoch_2.pt"
    export_checkpoint(finished.save_dir / "checkpoint_epoch_2", file)
    status, report = inspect(file, capsys)
    assert status == 0 and report["kind"] == "file" and report["missing"] == []
    told(report, finished)
    assert report["size"] == file.stat().st_size


def test_a_mid_epoch_checkpoint_says_where_it_stands(finished, capsys):
    _, report = inspect(finished.save_dir / "checkpoint_step_4", capsys)
    assert (report["epoch"], report["step"], report["step_in_epoch"]) == (1, 4, 4 - finished.data.plan.steps_per_epoch)
    assert len(report["epochs"]) == 1


def test_the_text_has_what_people_look_for(finished, capsys):
    assert main(["inspect", str(finished.save_dir / "checkpoint_epoch_2")]) == 0
    text = capsys.readouterr().out
    for part in (
        "every file verified",
        f"epoch 2 of 2 done · optimizer step {finished.progress.step}",
        f"{finished.data.plan.steps_per_epoch} steps per epoch",
        f"{finished.best.loss:.4f} nats/residue at epoch {finished.best.epoch}",
        f"{finished.schedule.rate(finished.progress.step):.3e} for the next step",
        "2 shards per optimizer step",
        "validation structures · fingerprint",
        "hidden_dim 16",
        "batch_residues 300",
        f"torch {torch.__version__}",
        "state/optimizer.bin",
    ):
        assert part in " ".join(text.split()), part
    for epoch in finished.history.epochs:
        assert f"{epoch['train_loss']:.4f}" in text and f"{epoch['validation_loss']:.4f}" in text
    assert max(map(len, text.splitlines())) <= 120 + len(str(finished.save_dir))


def test_a_save_folder_is_a_table_of_its_checkpoints(finished, capsys):
    (finished.save_dir / ".incomplete-checkpoint_epoch_3").mkdir()
    shutil.copytree(finished.save_dir / "checkpoint_epoch_1", finished.save_dir / "superseded" / "checkpoint_epoch_9")
    status, report = inspect(finished.save_dir, capsys)
    assert status == 0
    expected = [path.name for path in CheckpointStore(finished.save_dir).resumable()]
    assert [Path(entry["path"]).name for entry in report["checkpoints"]] == expected
    assert len(expected) >= 4
    assert report["newest_good"] == locate("latest", finished.save_dir).folder.name == "checkpoint_epoch_2"
    assert report["leftovers"] == [".incomplete-checkpoint_epoch_3"]
    assert report["superseded"] == ["checkpoint_epoch_9"]
    text = save_folder_text(inspect_path(finished.save_dir))
    for name in [*expected, ".incomplete-checkpoint_epoch_3", "checkpoint_epoch_9", f"{finished.best.loss:.4f}"]:
        assert name in text


@pytest.mark.parametrize("seed", range(12))
def test_the_damaged_file_is_named_and_the_rest_still_told(finished, capsys, seed):
    folder = finished.save_dir / "checkpoint_epoch_2"
    randomness = random.Random(seed)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    name = names[seed % len(names)]
    content = bytearray((folder / name).read_bytes())
    how = randomness.choice(["flip", "truncate", "delete"])
    if how == "delete":
        (folder / name).unlink()
    elif how == "truncate":
        (folder / name).write_bytes(content[: len(content) // 2])
    else:
        content[randomness.randrange(len(content))] ^= 1 << randomness.randrange(8)
        (folder / name).write_bytes(content)
    status, report = inspect(folder, capsys)
    assert status == 1 and not report["ok"]
    [problem] = report["problems"]
    assert name in problem
    if name != "manifest.json":
        assert [file["name"] for file in report["files"] if file["problem"]] == [name]
        assert (report["epoch"], report["step"]) == (2, finished.progress.step)
    text = checkpoint_text(inspect_path(folder))
    assert "DAMAGED" in text and name in text
    status, report = inspect(finished.save_dir, capsys)
    assert status == 1
    assert report["newest_good"] == locate("latest", finished.save_dir).folder.name != "checkpoint_epoch_2"


def test_files_that_do_not_belong_are_told(finished, capsys):
    folder = finished.save_dir / "checkpoint_epoch_2"
    torch.save({}, folder / "state" / "random_states_0.pkl")
    status, report = inspect(folder, capsys)
    assert status == 1 and "random_states_0.pkl: is not part of this checkpoint" in report["problems"][0]


class Hostile:
    def __reduce__(self):
        return (os.system, ("touch HOSTILE_CODE_RAN",))


def test_code_in_a_folder_with_right_checksums_is_told_and_not_run(finished, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = CheckpointStore(finished.save_dir)
    names = ["optimizer.bin", *(f"custom_checkpoint_{index}.pkl" for index in range(4))]
    for name in names:
        temporary = store.begin("checkpoint_epoch_9")
        shutil.copytree(finished.save_dir / "checkpoint_epoch_2", temporary, dirs_exist_ok=True)
        (temporary / "manifest.json").unlink()
        with (temporary / "state" / name).open("wb") as handle:
            pickle.dump(Hostile(), handle)
        registered = ["progress", "loss_history", "best_validation", "weight_average"]
        folder = store.commit(temporary, 90, 9, registered, {})
        status, report = inspect(folder, capsys)
        assert status == 1 and f"{name}: holds more than tensors" in report["problems"][0]
        assert not (tmp_path / "HOSTILE_CODE_RAN").exists()


def test_a_folder_whose_content_makes_no_sense_is_damaged_not_a_crash(finished, capsys):
    store = CheckpointStore(finished.save_dir)
    for change in ({"step": "x"}, {"steps_per_epoch": None}, {}):
        temporary = store.begin("checkpoint_epoch_9")
        torch.save({"step": 1, **change}, temporary / "state" / "custom_checkpoint_0.pkl")
        (temporary / "settings.json").write_text("[]" if not change else "{}")
        folder = store.commit(temporary, 90, 9, ["progress"], {})
        status, report = inspect(folder, capsys)
        assert status == 1 and "its content is not that of a checkpoint" in report["problems"][-1]


def test_a_file_of_another_program_tells_what_it_has(tmp_path, capsys):
    document = {
        **{"epoch": 3, "encoder_state_dict": {"a": torch.ones(5)}, "decoder_state_dict": {"b": torch.ones(2)}},
        **{"train_losses": [3.0, 2.5, 2.25, 2.125], "val_losses": [3.0, 2.75, 2.5, 2.625], "loss": 2.5},
        **{"warmup_epochs": 1, "total_epochs": 9, "max_lr": 0.5, "comment": "mine"},
    }
    torch.save(document, tmp_path / "x.pt")
    status, report = inspect(tmp_path / "x.pt", capsys)
    assert status == 0
    assert (report["epoch"], report["best_loss"], report["parameters"]) == (4, 2.5, 7)
    assert "counted from 0" in report["remarks"][0]
    assert report["missing"] == ["optimizer_state_dict", "cosine_scheduler_state_dict", "full_state"]
    assert [epoch["epoch"] for epoch in report["epochs"]] == [1, 2, 3, 4]
    assert report["epochs"][-1]["validation_loss"] == 2.625
    assert report["schedule"]["next_rate"] == pytest.approx(0.5 * 0.5 * (1 + torch.cos(torch.tensor(3 / 8 * torch.pi))))
    assert main(["inspect", str(tmp_path / "x.pt")]) == 0
    text = capsys.readouterr().out
    assert "2.6250" in text and "comment" not in text.split("not in it")[1].split("\n")[0]

    torch.save(document, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert main(["inspect", str(tmp_path / "old.pt")]) == 0
    assert "has no checksums" in capsys.readouterr().out


def test_losses_that_are_not_numbers_are_null_in_json(tmp_path, capsys):
    document = {"epoch": 1, "encoder_state_dict": {}, "decoder_state_dict": {}, "train_losses": [float("nan")]}
    torch.save({**document, "loss": float("inf")}, tmp_path / "x.pt")
    status, report = inspect(tmp_path / "x.pt", capsys)
    assert status == 0 and report["epochs"] == [{"epoch": 1, "train_loss": None}] and report["best_loss"] is None


def test_exit_status_2_for_what_is_no_checkpoint(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("not a checkpoint")
    (tmp_path / "empty.pt").touch()
    torch.save({"weights": torch.ones(2)}, tmp_path / "weights.pt")
    (tmp_path / "folder").mkdir()
    for name in ("notes.txt", "empty.pt", "weights.pt", "folder", "missing"):
        assert main(["inspect", str(tmp_path / name)]) == 2
        printed = capsys.readouterr()
        assert name in printed.err and printed.out == ""


def test_exit_status_1_for_a_damaged_file(finished, tmp_path, capsys):
    file = tmp_path / "x.pt"
    export_checkpoint(finished.save_dir / "checkpoint_epoch_1", file)
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    status, report = inspect(file, capsys)
    assert status == 1 and str(file) in report["problems"][0]


def test_help_is_there_at_once_and_inspecting_does_not_import_the_model():
    check = (
        "import sys, protein_model.__main__ as m\n"
        "for command in ('inspect', 'convert'):\n"
        "    try: m.main([command, '--help'])\n"
        "    except SystemExit: pass\n"
        "assert not {'torch', 'numpy', 'transformers', 'accelerate'} & set(sys.modules)\n"
        "import protein_model.training.inspection\n"
        "assert not {'transformers', 'accelerate'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "DIR_OR_FILE" in done.stdout and "SOURCE TARGET" in done.stdout
