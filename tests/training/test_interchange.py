"""Checkpoint folders as single files and back; files of other programs; files that must not be loaded."""

import json
import math
import os
import pickle
import random
import re
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from protein_model.__main__ import main
from protein_model.model.configuration import ProteinModelConfig
from protein_model.model.modeling import ProteinModel
from protein_model.training.arguments import GivenOptions
from protein_model.training.checkpoints import CheckpointError, CheckpointStore, DamagedCheckpoint, verify
from protein_model.training.content import read_content, same_state
from protein_model.training.interchange import export_checkpoint, import_checkpoint
from protein_model.training.single_file import KEYS, NotACheckpoint, read_single_file

AGREED = (
    *("epoch", "encoder_state_dict", "decoder_state_dict", "optimizer_state_dict", "cosine_scheduler_state_dict"),
    *("train_losses", "val_losses", "loss", "warmup_epochs", "total_epochs", "max_lr"),
)
TINY_MODEL = {
    **{"hidden_dim": 16, "num_encoder_layers": 1, "num_decoder_layers": 1, "num_neighbors": 8},
    **{"use_discrete_diffusion": True, "num_diffusion_steps": 10},
}
TIMES = {"seconds", "residues_per_second"}


def flat(value, path=()):
    """Every leaf of nested dictionaries and lists, by its path."""
    if isinstance(value, (dict, list, tuple)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: leaf for part, below in items for key, leaf in flat(below, (*path, part)).items()}
    return {path: value}


def everything(folder):
    """All leaves of all files of a checkpoint folder, read without the code under test."""
    leaves = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".safetensors":
            leaves |= flat(load_file(path), (name,))
        elif path.suffix in (".bin", ".pkl"):
            leaves |= flat(torch.load(path, weights_only=True), (name,))
        elif path.suffix == ".json" and name != "manifest.json":
            leaves |= flat(json.loads(path.read_text()), (name,))
        elif name != "manifest.json":
            leaves[(name,)] = path.read_bytes()
    return leaves


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for path, value in one.items():
        same = torch.equal(value, other[path]) if isinstance(value, torch.Tensor) else value == other[path]
        assert same, path


def state_of(trainer):
    """Everything of a run that a resume must not change."""
    history = [{k: v for k, v in epoch.items() if k not in TIMES} for epoch in trainer.history.epochs]
    return flat(
        {
            "model": dict(trainer.network.state_dict()),
            "optimizer": trainer.optimizer.optimizer.state_dict(),
            "average": trainer.average.state_dict(),
            "history": history,
            "best": trainer.best.state_dict(),
            "step": trainer.progress.step,
        }
    )


# ---------------------------------------------------------------------- files of this package


def test_folder_to_file_to_folder_is_bitwise(finished, tmp_path):
    names = [path.name for path in CheckpointStore(finished.save_dir).resumable()]
    assert any("step" in name for name in names) and "best_model" in names
    for name in names:
        file = tmp_path / f"{name}.pt"
        assert main(["convert", str(finished.save_dir / name), str(file)]) == 0
        assert main(["convert", str(file), str(tmp_path / "back" / name)]) == 0
        before, after = verify(finished.save_dir / name), verify(tmp_path / "back" / name)
        assert (before.step, before.epoch, before.registered, before.versions) == (
            after.step,
            after.epoch,
            after.registered,
            after.versions,
        )
        assert before.files.keys() == after.files.keys()
        assert_equal(everything(finished.save_dir / name), everything(tmp_path / "back" / name))


def test_a_file_has_exactly_the_agreed_keys_and_one_of_its_own(finished, tmp_path):
    file = tmp_path / "checkpoint_epoch_2.pt"
    export_checkpoint(finished.save_dir / "checkpoint_epoch_2", file)
    document = torch.load(file, weights_only=True)
    assert tuple(document) == (*AGREED, "full_state")
    assert document["epoch"] == document["total_epochs"] == 2
    assert document["train_losses"] == finished.history.column("train_loss")
    assert document["val_losses"] == finished.history.column("validation_loss")
    assert document["loss"] == finished.best.loss == min(document["val_losses"])
    assert (document["warmup_epochs"], document["max_lr"]) == (1.0, finished.settings.learning_rate)


def test_other_programs_load_a_file_with_torch_alone(finished, tmp_path):
    """Weights into the two modules, state into AdamW by name, and the scheduler goes on as the trainer's schedule."""
    file = tmp_path / "checkpoint.pt"
    export_checkpoint(finished.save_dir / "checkpoint_epoch_1", file)
    document = torch.load(file, weights_only=True)
    model = ProteinModel(ProteinModelConfig(**TINY_MODEL))
    model.encoder.load_state_dict(document["encoder_state_dict"])
    model.decoder.load_state_dict(document["decoder_state_dict"])

    parameters = dict(model.named_parameters())
    groups = [
        {"params": [parameters[name] for name in group["param_names"]]}
        for group in document["optimizer_state_dict"]["param_groups"]
    ]
    optimizer = torch.optim.AdamW(groups)
    optimizer.load_state_dict(document["optimizer_state_dict"])
    step = int(next(iter(optimizer.state.values()))["step"].item())
    assert step == finished.data.plan.steps_per_epoch

    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=1)
    scheduler.load_state_dict(document["cosine_scheduler_state_dict"])
    rates = [scheduler.get_last_lr()[0]]
    while len(rates) < finished.data.plan.steps_per_epoch:
        optimizer.step()
        scheduler.step()
        rates.append(scheduler.get_last_lr()[0])
    assert rates == pytest.approx([finished.schedule.rate(step + index) for index in range(len(rates))], abs=1e-9)


@pytest.mark.parametrize("name", ["checkpoint_epoch_1", "checkpoint_step_2", "best_model"])
def test_a_resume_from_the_file_is_a_resume_from_the_folder(finished, start, tmp_path, capsys, name):
    folder, file = finished.save_dir / name, tmp_path / f"{name}.pt"
    export_checkpoint(folder, file)
    from_folder = start(save_dir="from_folder", resume_from=str(folder), epochs=3)
    from_folder.fit()
    capsys.readouterr()
    from_file = start(save_dir="from_file", resume_from=str(file), epochs=3)
    said = capsys.readouterr().out
    new = tmp_path / "from_file" / (f"checkpoint_epoch_{finished.best.epoch}" if name == "best_model" else name)
    verify(new)
    assert f"Imported {file} as {new}" in said and f"Resumed from {new}" in said
    assert "WARNING" not in said
    best = tmp_path / "from_file" / "best_model"
    assert best.exists() == (name != "checkpoint_step_2")  # after each epoch the loss was the lowest so far
    from_file.fit()
    assert_equal(state_of(from_folder), state_of(from_file))


def test_two_processes_resume_from_a_file_beside_which_they_save(finished, launch, tmp_path):
    file = tmp_path / "elsewhere" / "checkpoint_epoch_1.pt"
    file.parent.mkdir()
    export_checkpoint(finished.save_dir / "checkpoint_epoch_1", file)
    output, _ = launch("--resume_from", str(file), processes=2)
    assert output.count(f"Imported {file} as {file.with_suffix('')}") == 1
    assert "continues with epoch 2 of 2" in output
    assert verify(file.parent / "checkpoint_epoch_2").epoch == 2
    losses = json.loads((file.parent / "history.json").read_text())["epochs"]
    assert [epoch["train_loss"] for epoch in losses] == pytest.approx(finished.history.column("train_loss"), rel=1e-4)


def test_a_second_resume_finds_what_the_first_imported(finished, start, tmp_path):
    file = tmp_path / "checkpoint_epoch_2.pt"
    export_checkpoint(finished.save_dir / "checkpoint_epoch_2", file)
    folder = tmp_path / "again" / "checkpoint_epoch_2"
    start(save_dir="again", resume_from=str(file), epochs=3)
    written = (folder / "manifest.json").stat().st_mtime_ns
    start(save_dir="again", resume_from=str(file), epochs=3)
    assert (folder / "manifest.json").stat().st_mtime_ns == written
    (folder / "state" / "optimizer.bin").write_bytes(b"damaged")
    start(save_dir="again", resume_from=str(file), epochs=3)
    verify(folder)


def test_another_checkpoint_of_the_same_name_is_not_overwritten(finished, start, tmp_path):
    file = tmp_path / "checkpoint_epoch_1.pt"
    export_checkpoint(finished.save_dir / "checkpoint_epoch_1", file)
    other = start(save_dir="other", epochs=1, seed=7)
    other.fit()
    before = everything(other.save_dir / "checkpoint_epoch_1")
    with pytest.raises(CheckpointError, match="is there already and holds another state"):
        start(save_dir="other", resume_from=str(file))
    assert_equal(before, everything(other.save_dir / "checkpoint_epoch_1"))


def test_what_exists_is_not_overwritten_by_convert(finished, tmp_path, capsys):
    folder, file = finished.save_dir / "checkpoint_epoch_1", tmp_path / "checkpoint_epoch_1.pt"
    file.write_text("precious")
    assert main(["convert", str(folder), str(file)]) == 2
    assert file.read_text() == "precious"
    file.unlink()
    assert main(["convert", str(folder), str(file)]) == 0
    assert main(["convert", str(file), str(folder)]) == 2
    assert capsys.readouterr().err.count("exists already") == 2


def test_a_damaged_folder_is_not_exported(finished, tmp_path):
    folder = finished.save_dir / "checkpoint_epoch_1"
    (folder / "state" / "custom_checkpoint_3.pkl").write_bytes(b"")
    with pytest.raises(DamagedCheckpoint, match=r"custom_checkpoint_3\.pkl: has 0 bytes"):
        export_checkpoint(folder, tmp_path / "x.pt")
    assert not list(tmp_path.glob("*x.pt*"))


@pytest.mark.parametrize(
    ("key", "value"), [("epoch", 0), ("loss", 0.1), ("train_losses", [1.0]), ("max_lr", 1.0), ("total_epochs", 7)]
)
def test_an_edited_file_is_refused_rather_than_half_believed(finished, tmp_path, key, value):
    file = tmp_path / "checkpoint_epoch_1.pt"
    export_checkpoint(finished.save_dir / "checkpoint_epoch_1", file)
    torch.save({**torch.load(file, weights_only=True), key: value}, file)
    with pytest.raises(CheckpointError, match=f"{key} is .* but full_state says"):
        import_checkpoint(file, GivenOptions({}), 1, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_configuration_cannot_name_code_to_load(finished, tmp_path):
    file = tmp_path / "checkpoint_epoch_1.pt"
    export_checkpoint(finished.save_dir / "checkpoint_epoch_1", file)
    document = torch.load(file, weights_only=True)
    document["full_state"]["config"]["auto_map"] = {"AutoModel": "stranger/repository--modeling.Evil"}
    torch.save(document, file)
    folder = import_checkpoint(file, GivenOptions({}), 1, tmp_path / "run").folder
    assert "auto_map" not in json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda full: full.update(format=99), "format 99, but this version of the package reads 1"),
        (lambda full: full.pop("registered"), "has no usable registered"),
        (
            lambda full: full["config"].update(hidden_dim=32),
            r"embed_tokens.weight: shape \(21, 16\) in the file, \(21, 32\)",
        ),
        (lambda full: full["config"].update(hidden_dim=-1), "hidden_dim must be at least 1"),
        (lambda full: full["registered"].pop("progress"), "progress"),
        (lambda full: full["registered"]["progress"].update(steps_per_epoch=0), "progress cannot be used"),
        (lambda full: full["registered"]["best_validation"].pop("loss"), "best_validation has no 'loss'"),
        (lambda full: full["registered"]["weight_average"]["average"].popitem(), "weight_average has no"),
        (lambda full: full["run"].pop("settings"), "settings in full_state cannot be used"),
    ],
)
def test_a_full_state_that_does_not_fit_is_refused(finished, tmp_path, change, message):
    file = tmp_path / "checkpoint_epoch_1.pt"
    export_checkpoint(finished.save_dir / "checkpoint_epoch_1", file)
    document = torch.load(file, weights_only=True)
    change(document["full_state"])
    torch.save(document, file)
    with pytest.raises(CheckpointError, match=message):
        import_checkpoint(file, GivenOptions({}), 1, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------------- files of other programs


class OtherTrainer:
    """What a plain training loop has: the two modules, AdamW, a scheduler, and a file with the agreed keys."""

    def __init__(self, layout="one group", epochs=4, steps_per_epoch=3, **model):
        torch.manual_seed(5)
        self.model = ProteinModel(ProteinModelConfig(**{**TINY_MODEL, **model}))
        encoder, decoder = self.model.encoder, self.model.decoder
        parameters = {
            "one group": [*encoder.parameters(), *decoder.parameters()],
            "encoder, decoder": [{"params": encoder.parameters()}, {"params": decoder.parameters()}],
            "named": [*self.model.named_parameters()],
            "matrices, others": self._by_decay(),
        }[layout]
        self.optimizer = torch.optim.AdamW(parameters, lr=2e-3, betas=(0.9, 0.999))
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=19)
        generator = torch.Generator().manual_seed(6)
        for epoch in range(epochs):
            for _ in range(steps_per_epoch):
                for parameter in self.model.parameters():
                    parameter.grad = torch.randn(parameter.shape, generator=generator)
                self.optimizer.step()
            if epoch >= 1:
                self.scheduler.step()
        self.epochs = epochs

    def _by_decay(self):
        embeddings = [m.weight for m in self.model.modules() if isinstance(m, nn.Embedding)]
        matrices = [p for p in self.model.parameters() if p.ndim >= 2 and all(p is not e for e in embeddings)]
        rest = [p for p in self.model.parameters() if all(p is not m for m in matrices)]
        return [{"params": matrices}, {"params": rest, "weight_decay": 0.0}]

    def document(self, **changes):
        document = {
            "epoch": self.epochs,
            "encoder_state_dict": self.model.encoder.state_dict(),
            "decoder_state_dict": self.model.decoder.state_dict(),
            "optimizer_state_dict": self.optimizer.state_dict(),
            "cosine_scheduler_state_dict": self.scheduler.state_dict(),
            "train_losses": [3.0 - 0.1 * epoch for epoch in range(self.epochs)],
            "val_losses": [2.9, 2.7, 2.5, 2.6][: self.epochs],
            "loss": 2.5,
            "warmup_epochs": 1,
            "total_epochs": 20,
            "max_lr": 2e-3,
        }
        return {key: value for key, value in {**document, **changes}.items() if value is not ...}

    def save(self, path, **changes):
        torch.save(self.document(**changes), path)
        return path

    def moments(self):
        """name -> state of the optimizer, by the identity of the parameters."""
        return {name: self.optimizer.state[parameter] for name, parameter in self.model.named_parameters()}


def imported(path, run, **given):
    return import_checkpoint(path, GivenOptions({**TINY_MODEL, **given}), given.pop("shards", 1), run)


@pytest.mark.parametrize("layout", ["one group", "encoder, decoder", "named", "matrices, others"])
def test_a_file_of_another_trainer_goes_on_here(start, tmp_path, capsys, layout):
    other = OtherTrainer(layout)
    file = other.save(tmp_path / "checkpoint_epoch_4.pt")
    trainer = start(save_dir="run", resume_from=str(file), **TINY_MODEL, batch_residues=300)
    said = capsys.readouterr().out
    for name, parameter in trainer.network.named_parameters():
        assert torch.equal(parameter, dict(other.model.named_parameters())[name])
        assert torch.equal(trainer.average.state_dict()["average"][name], parameter)
        for key, value in other.moments()[name].items():
            assert torch.equal(trainer.optimizer.optimizer.state[parameter][key], value), (name, key)
    assert [group["betas"] for group in trainer.optimizer.param_groups] == [(0.9, 0.999)] * 2
    assert [group["weight_decay"] for group in trainer.optimizer.param_groups] == [0.01, 0.0]
    assert ("has no param_names" in said) == (layout != "named")
    assert "continues with epoch 5 of 20; 4 epochs in the train history, 4 in the validation history" in said
    assert trainer.history.column("validation_loss") == [2.9, 2.7, 2.5, 2.6]
    assert (trainer.best.loss, trainer.best.epoch, trainer.best.epochs_without_improvement) == (2.5, 3, 1)
    assert (trainer.settings.epochs, trainer.settings.learning_rate, trainer.settings.warmup_epochs) == (20, 2e-3, 1)
    assert trainer.schedule.rate(trainer.progress.step) == pytest.approx(other.scheduler.get_last_lr()[0])
    assert "learning rate is" not in said  # both schedules agree
    assert "num_neighbors 8, use_discrete_diffusion True" in said and "cannot be told from sizes" in said
    assert "no weight average" in said and "does not say which data" in said


def test_and_it_trains_and_resumes_as_a_run_of_this_trainer(start, tmp_path):
    file = OtherTrainer().save(tmp_path / "checkpoint_epoch_4.pt", total_epochs=5)
    trainer = start(save_dir="run", resume_from=str(file), **TINY_MODEL, batch_residues=300)
    trainer.fit()
    assert [epoch["epoch"] for epoch in trainer.history.epochs] == [1, 2, 3, 4, 5]
    again = start(save_dir="run", resume_from="latest")
    assert again.progress.epoch == 5
    assert_equal(state_of(again), state_of(trainer))


def test_the_shards_of_another_trainers_run_are_those_of_the_launch(start, tmp_path):
    file = OtherTrainer().save(tmp_path / "checkpoint_epoch_4.pt")
    trainer = start(
        save_dir="run", resume_from=str(file), **TINY_MODEL, batch_residues=150, gradient_accumulation_steps=4
    )
    assert trainer.shards == trainer.progress.shards == 4


def test_options_win_over_the_schedule_of_the_file(start, tmp_path, capsys):
    file = OtherTrainer().save(tmp_path / "checkpoint_epoch_4.pt")
    trainer = start(save_dir="run", resume_from=str(file), **TINY_MODEL, epochs=30, learning_rate=1e-4)
    assert (trainer.settings.epochs, trainer.settings.learning_rate) == (30, 1e-4)
    assert "learning_rate: 0.002 in the checkpoint, 0.0001 now" in capsys.readouterr().out


def test_a_best_loss_that_is_not_reached_again_leaves_no_best_model(start, tmp_path, capsys):
    file = OtherTrainer().save(tmp_path / "checkpoint_epoch_4.pt", loss=0.1, total_epochs=5)
    trainer = start(save_dir="run", resume_from=str(file), **TINY_MODEL)
    assert trainer.best.loss == 0.1
    result = trainer.fit()
    assert result.best_model is None and result.best_loss == 0.1
    assert "from before the resume, not in " in capsys.readouterr().out


def test_a_dry_run_writes_nothing_where_the_run_would(start, tmp_path, capsys):
    file = OtherTrainer().save(tmp_path / "checkpoint_epoch_4.pt")
    before = sorted(tmp_path.rglob("*"))
    start(save_dir="run", resume_from=str(file), **TINY_MODEL, dry_run=True)
    said = capsys.readouterr().out
    assert "for the dry run only" in said and "continues with epoch 5 of 20" in said
    assert sorted(tmp_path.rglob("*")) == before


def test_without_data_a_file_of_another_trainer_does_not_train_on_the_examples(start, tmp_path):
    file = OtherTrainer().save(tmp_path / "checkpoint_epoch_4.pt")
    with pytest.raises(CheckpointError, match="does not say which data it was trained on: give --pdb_path"):
        start(save_dir="run", resume_from=str(file), **TINY_MODEL, pdb_path=None)


@pytest.mark.parametrize(
    ("missing", "note"),
    [
        ("optimizer_state_dict", "no optimizer_state_dict: the running averages of the gradients start anew"),
        ("cosine_scheduler_state_dict", "no cosine_scheduler_state_dict: nothing is lost, the rate follows from"),
        ("train_losses", "no train_losses: that curve starts anew at epoch 5"),
        ("val_losses", "no val_losses: that curve starts anew at epoch 5"),
        ("loss", r"no loss, the best validation loss so far: 2\.5000, the lowest of val_losses, is taken"),
        ("max_lr", r"no max_lr: 0\.002 is read from its scheduler state"),
        ("total_epochs", "no total_epochs: 20 is read from its scheduler state"),
        ("warmup_epochs", r"no warmup_epochs: --warmup_epochs 1 is used, the default"),
    ],
)
def test_a_missing_key_is_a_note_that_says_what_it_means(tmp_path, missing, note):
    file = OtherTrainer().save(tmp_path / "x.pt", **{missing: ...})
    done = imported(file, tmp_path / "run")
    [line] = [line for line in done.notes if f"no {missing}" in line]
    assert re.search(note, line)
    complete = imported(OtherTrainer().save(tmp_path / "x.pt"), tmp_path / "whole")
    assert set(done.notes) - {line} <= set(complete.notes) | {
        line for line in done.notes if "epoch that reached" in line
    }
    content, whole = read_content(done.folder), read_content(complete.folder)
    if missing in ("cosine_scheduler_state_dict", "max_lr", "total_epochs", "warmup_epochs", "loss"):
        assert same_state(content, whole)
        assert content.run == whole.run


def test_only_weights_and_epoch_are_needed(tmp_path):
    minimal = dict.fromkeys(set(KEYS) - {"epoch", "encoder_state_dict", "decoder_state_dict"}, ...)
    done = imported(OtherTrainer().save(tmp_path / "x.pt", **minimal), tmp_path / "run")
    content = read_content(done.folder)
    assert content.progress.epoch == 4
    assert content.registered["best_validation"]["loss"] == math.inf
    for key in ("epoch", "encoder_state_dict"):
        with pytest.raises(NotACheckpoint, match=f"has no {key}"):
            imported(OtherTrainer().save(tmp_path / "x.pt", **{key: ...}), tmp_path / "none")


def test_every_tensor_of_another_architecture_is_named_with_the_options_that_fit(tmp_path):
    other = OtherTrainer(hidden_dim=32, num_encoder_layers=2)
    file = other.save(tmp_path / "x.pt")
    with pytest.raises(CheckpointError) as caught:
        imported(file, tmp_path / "run")
    text = str(caught.value)
    expected = ProteinModel(ProteinModelConfig(**TINY_MODEL)).state_dict()
    for name, tensor in other.model.state_dict().items():
        if name not in expected:
            assert f"{name}: shape {tuple(tensor.shape)} in the file, not in the model" in text
        elif tensor.shape != expected[name].shape:
            assert (
                f"{name}: shape {tuple(tensor.shape)} in the file, {tuple(expected[name].shape)} in the model" in text
            )
        else:
            assert name not in text
    assert text.endswith("To import it, give: --hidden_dim 32 --num_encoder_layers 2")
    assert not (tmp_path / "run").exists()
    imported(file, tmp_path / "run", hidden_dim=32, num_encoder_layers=2)


def test_an_unrelated_model_is_one_line(tmp_path):
    other = nn.Transformer(8, 2, 1, 1, 8)
    file = OtherTrainer().save(
        tmp_path / "x.pt", encoder_state_dict=other.encoder.state_dict(), decoder_state_dict=other.decoder.state_dict()
    )
    with pytest.raises(CheckpointError, match=r"this one does not know \d+ of its \d+ weights by name") as caught:
        imported(file, tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_names_of_wrappers_are_left_out(tmp_path):
    other = OtherTrainer()
    wrapped = {
        f"{part}_state_dict": {
            f"module._orig_mod.{name}": t for name, t in getattr(other.model, part).state_dict().items()
        }
        for part in ("encoder", "decoder")
    }
    done = imported(other.save(tmp_path / "x.pt", **wrapped), tmp_path / "run")
    plain = imported(other.save(tmp_path / "y.pt"), tmp_path / "plain")
    assert same_state(read_content(done.folder), read_content(plain.folder))
    assert any("wrapper" in note for note in done.notes)


@pytest.mark.parametrize(
    ("file", "changes", "epoch", "says"),
    [
        ("x.pt", {}, 4, False),
        ("x.pt", {"epoch": 3}, 4, True),  # 4 losses
        ("checkpoint_epoch_4.pt", {"epoch": 3, "train_losses": ..., "val_losses": ...}, 4, True),
        ("checkpoint_epoch_3.pt", {"epoch": 3, "train_losses": ..., "val_losses": ...}, 3, False),
    ],
)
def test_epochs_counted_from_zero_are_recognised(tmp_path, file, changes, epoch, says):
    done = imported(OtherTrainer().save(tmp_path / file, **changes), tmp_path / "run")
    assert read_content(done.folder).progress.epoch == epoch
    assert any("counted from 0" in note for note in done.notes) == says


def test_an_optimizer_of_another_kind_is_not_used_and_said(tmp_path):
    other = OtherTrainer()
    sgd = torch.optim.SGD(other.model.parameters(), lr=0.1, momentum=0.9)
    for parameter in other.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    sgd.step()
    for state in (sgd.state_dict(), {"state": {}, "param_groups": []}, {"encoder": 1}):
        done = imported(other.save(tmp_path / "x.pt", optimizer_state_dict=state), tmp_path / f"run{len(state)}")
        [note] = [note for note in done.notes if note.startswith("optimizer_state_dict")]
        assert "start anew" in note
        assert read_content(done.folder).optimizer["state"] == {}


def test_numbers_of_numpy_and_torch_are_read(tmp_path):
    other = OtherTrainer()
    changes = {
        "loss": np.float64(2.5),
        "train_losses": [np.float32(3.0), np.float64(2.9), torch.tensor(2.8, dtype=torch.float64), np.float64(2.7)],
        "val_losses": [np.dtype(">f8").type(value) for value in (2.9, 2.7, 2.5, 2.6)],
        "epoch": np.int64(4),
        "max_lr": np.float64(2e-3),
    }
    done = imported(other.save(tmp_path / "x.pt", **changes), tmp_path / "run")
    plain = imported(other.save(tmp_path / "y.pt", train_losses=[3.0, 2.9, 2.8, 2.7]), tmp_path / "plain")
    assert same_state(read_content(done.folder), read_content(plain.folder))


# ---------------------------------------------------------------------- files that must not be loaded


class Hostile:
    def __reduce__(self):
        return (os.system, ("touch HOSTILE_CODE_RAN",))


def hostile_positions():
    document = OtherTrainer(epochs=1).document()
    document["full_state"] = {"format": 1, "registered": {"progress": {}}}
    positions = [(key,) for key in document]
    positions += [("encoder_state_dict", "norm"), ("optimizer_state_dict", "state", 0), ("train_losses", 0)]
    positions += [("full_state", "registered", "progress"), ("optimizer_state_dict", "param_groups", 0), ("other",)]
    return document, positions


@pytest.mark.parametrize("position", hostile_positions()[1], ids=lambda path: "-".join(map(str, path)))
@pytest.mark.parametrize("how", ["convert", "inspect"])
def test_code_in_any_position_is_refused(tmp_path, monkeypatch, capsys, position, how):
    monkeypatch.chdir(tmp_path)
    document, _ = hostile_positions()
    place = document
    for key in position[:-1]:
        place = place[key]
    place[position[-1]] = Hostile()
    torch.save(document, "x.pt")
    assert main([how, "x.pt", *(["run/checkpoint_epoch_1"] if how == "convert" else [])]) == (
        2 if how == "convert" else 1
    )
    printed = capsys.readouterr()
    assert "system" in printed.err + printed.out
    assert "weights_only=False" not in printed.err + printed.out
    assert not (tmp_path / "HOSTILE_CODE_RAN").exists() and not (tmp_path / "run").exists()


@pytest.mark.parametrize("wrap", [Hostile, lambda: [Hostile()], lambda: np.array([Hostile()], dtype=object)])
def test_code_in_a_bare_pickle_or_as_a_numpy_number_is_refused(tmp_path, monkeypatch, wrap):
    monkeypatch.chdir(tmp_path)
    for protocol in (2, 4):
        with open("x.pt", "wb") as handle:
            pickle.dump({"epoch": wrap()}, handle, protocol=protocol)
        with pytest.raises(DamagedCheckpoint):
            read_single_file(tmp_path / "x.pt")
    assert not (tmp_path / "HOSTILE_CODE_RAN").exists()


def test_a_resume_refuses_code_too(start, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = OtherTrainer().save(tmp_path / "checkpoint_epoch_4.pt", loss=Hostile())
    with pytest.raises(DamagedCheckpoint, match="can run code; nothing was loaded"):
        start(save_dir="run", resume_from=str(file), **TINY_MODEL)
    assert not (tmp_path / "HOSTILE_CODE_RAN").exists()


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6))
def test_damage_is_noticed_or_harmless(tmp_path, seed):
    """Torch does not look at the checksums in its files; the reader here does."""
    file = tmp_path / "x.pt"
    document = {
        "epoch": 1,
        "encoder_state_dict": {"a": torch.arange(600.0)},
        "decoder_state_dict": {"b": torch.ones(3)},
    }
    torch.save(document, file)
    randomness = random.Random(seed)
    content = bytearray(file.read_bytes())
    if randomness.random() < 0.2:
        del content[randomness.randrange(len(content)) :]
    else:
        content[randomness.randrange(len(content))] ^= 1 << randomness.randrange(8)
    file.write_bytes(content)
    try:
        found = read_single_file(file)
    except CheckpointError as error:
        assert str(file) in str(error)
        return
    assert_equal(flat(document), flat(found))


def test_a_flipped_bit_in_the_weights_is_named(finished, tmp_path, capsys):
    file = tmp_path / "x.pt"
    export_checkpoint(finished.save_dir / "checkpoint_epoch_1", file)
    with zipfile.ZipFile(file) as archive:
        largest = max(
            (entry for entry in archive.infolist() if "/data/" in entry.filename), key=lambda entry: entry.file_size
        )
    content = bytearray(file.read_bytes())
    content[largest.header_offset + 2000] ^= 16
    file.write_bytes(content)
    torch.load(file, weights_only=True)  # torch takes it
    assert main(["convert", str(file), str(tmp_path / "run" / "checkpoint_epoch_1")]) == 2
    assert f"{largest.filename} does not match its checksum" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], "holds a list, not the dictionary of a checkpoint"),
        ({"weights": torch.ones(1)}, "has no epoch, no encoder_state_dict, no decoder_state_dict"),
        ({"epoch": 1, "encoder_state_dict": [], "decoder_state_dict": {}}, "encoder_state_dict is not a dictionary"),
        (
            {"epoch": 1, "encoder_state_dict": {"a": 1}, "decoder_state_dict": {}},
            r"encoder_state_dict\['a'\] is not a tensor",
        ),
        (
            {"epoch": 1, "encoder_state_dict": {"a": torch.eye(2).to_sparse()}, "decoder_state_dict": {}},
            r"\['a'\] is not a tensor",
        ),
        (
            {"epoch": 1, "encoder_state_dict": {}, "decoder_state_dict": OrderedDict(), "train_losses": ["x"]},
            "train_losses is not a list of numbers",
        ),
        ({"epoch": "x", "encoder_state_dict": {}, "decoder_state_dict": {}}, "epoch is not a number"),
    ],
)
def test_what_is_no_checkpoint_is_told(tmp_path, value, message):
    torch.save(value, tmp_path / "x.pt")
    with pytest.raises(NotACheckpoint, match=message):
        read_single_file(tmp_path / "x.pt")


@pytest.mark.parametrize("epoch", [-1, 0.5, math.inf, math.nan])
def test_an_epoch_is_a_count(tmp_path, epoch):
    with pytest.raises(NotACheckpoint, match=r"epoch is .*not a number"):
        imported(OtherTrainer().save(tmp_path / "x.pt", epoch=epoch), tmp_path / "run")


def test_a_file_that_cannot_be_written_leaves_nothing(finished, tmp_path):
    with pytest.raises(CheckpointError, match="cannot be written"):
        export_checkpoint(finished.save_dir / "checkpoint_epoch_1", tmp_path / "missing" / "x.pt")
    assert not (tmp_path / "missing").exists()
