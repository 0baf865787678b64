"""What a resume does, one promise a test, on real runs of the real trainer."""

import json
import math

import matplotlib.image
import pytest
import torch

from protein_model.data.batching import BatchingError
from protein_model.model.modeling import ProteinModel
from protein_model.training.arguments import SettingsError
from protein_model.training.checkpoints import CheckpointError, CheckpointStore, locate, verify

from .comparison import assert_same, state_of


def rates_of(trainer):
    """A list that gets the learning rate of every step that a trainer takes."""
    rates, step = [], trainer.steps.update

    def recorded(*arguments):
        result = step(*arguments)
        rates.append(result.learning_rate)
        return result

    trainer.steps.update = recorded
    return rates


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_discrete_diffusion": False},
        {"diffusion_kernel": "uniform"},
        {"diffusion_kernel": "substitution", "label_smoothing": 0.1},
        {"gradient_accumulation_steps": 2, "num_workers": 2, "batch_size": 2, "batch_residues": 200},
    ],
    ids=["absorbing", "one pass", "uniform", "substitution", "accumulation, workers, cropping"],
)
def test_a_run_stopped_in_the_middle_of_an_epoch_ends_bitwise_as_if_it_had_not_been(start, options):
    whole = start(save_dir="whole", **options)
    whole.fit()
    part = start(save_dir="part", save_every_steps=1, epochs=2, **options)
    cut = part.progress.steps_per_epoch + 1

    class Stop(Exception):
        pass

    real_save = part._save

    def save_and_stop(names):
        real_save(names)
        if part.progress.step == cut:
            raise Stop

    part._save = save_and_stop
    # The schedule must be that of the whole run from the start.
    part.settings.epochs = 3
    part.schedule = whole.schedule
    with pytest.raises(Stop):
        part.fit()
    resumed = start(save_dir="part", resume_from="latest", epochs=3)
    assert resumed.progress.step == cut
    resumed.fit()
    assert_same(state_of(resumed), state_of(whole))


def test_a_checkpoint_goes_on_with_the_next_epoch_and_the_history_stays(start, capsys):
    first = start(epochs=3)
    first.fit()
    epochs_before = list(first.history.epochs)
    best_before = first.best.loss
    capsys.readouterr()
    second = start(resume_from="checkpoint_epoch_3", epochs=5)
    said = capsys.readouterr().out
    assert "checkpoint_epoch_3: continues with epoch 4 of 5" in said
    assert "3 epochs in the train history, 3 in the validation history" in said
    assert "Changed on resume: epochs: 3 in the checkpoint, 5 now" in said
    assert second.best.loss == best_before
    second.fit()
    assert second.history.epochs[:3] == epochs_before
    assert [entry["epoch"] for entry in second.history.epochs] == [1, 2, 3, 4, 5]
    document = json.loads((second.save_dir / "history.json").read_text())
    assert len(document["epochs"]) == 5
    assert document["resumes"][0]["epoch"] == 3.0
    picture = matplotlib.image.imread(second.save_dir / "loss_curve.png")
    assert picture.std() > 0.01


def test_the_best_loss_is_restored_and_only_a_lower_one_replaces_the_best_model(start):
    first = start(epochs=2)
    first.fit()
    best = locate("best_model", first.save_dir)
    second = start(resume_from="latest", epochs=3)
    assert (second.best.loss, second.best.epoch) == (first.best.loss, first.best.epoch)
    second.best.loss = -1.0  # no loss can be lower
    second.fit()
    assert locate("best_model", first.save_dir).manifest == best.manifest


def test_best_model_resumes_and_loads_as_a_pretrained_model(start):
    first = start(epochs=2)
    first.fit()
    resumed = start(resume_from=str(first.save_dir / "best_model"), epochs=3)
    assert resumed.progress.epoch == first.best.epoch
    assert resumed.save_dir == first.save_dir
    model = ProteinModel.from_pretrained(first.save_dir / "best_model")
    average = locate("best_model", first.save_dir)
    saved = torch.load(average.folder / "state" / "custom_checkpoint_3.pkl", weights_only=True)["average"]
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, saved[name]), name


def test_warm_up_and_cosine_go_on_from_their_place(start):
    whole = start(save_dir="whole", epochs=4, warmup_epochs=2.0)
    rates = rates_of(whole)
    whole.fit()
    for epochs_done in (1, 3):  # within the warm-up, and behind it
        resumed = start(
            save_dir=f"from{epochs_done}", resume_from=str(whole.save_dir / f"checkpoint_epoch_{epochs_done}")
        )
        again = rates_of(resumed)
        resumed.fit()
        assert again == rates[epochs_done * whole.progress.steps_per_epoch :]
    assert max(rates) == pytest.approx(whole.settings.learning_rate)


def test_a_new_learning_rate_takes_effect_and_says_so(start, capsys):
    start(epochs=2).fit()
    capsys.readouterr()
    resumed = start(resume_from="latest", epochs=4, learning_rate=1e-5, weight_decay=0.3)
    said = capsys.readouterr().out
    assert "Changed on resume: learning_rate: 0.001 in the checkpoint, 1e-05 now" in said
    assert "Changed on resume: weight_decay: 0.01 in the checkpoint, 0.3 now" in said
    rate = resumed.schedule.rate(resumed.progress.step)
    assert f"-> {rate:.3e}" in said and rate < 1e-5
    resumed.fit()
    assert resumed.history.epochs[-1]["learning_rate"] < 1e-5
    assert [group["weight_decay"] for group in resumed.optimizer.param_groups] == [0.3, 0.0]


def test_another_architecture_is_refused_before_anything_is_loaded(start):
    first = start(epochs=1)
    first.fit()
    with pytest.raises(CheckpointError) as caught:
        start(resume_from="latest", hidden_dim=32, num_neighbors=9, epochs=2)
    text = str(caught.value)
    assert "hidden_dim: 16 in the checkpoint, 32 now" in text
    assert "num_neighbors: 8 in the checkpoint, 9 now" in text  # same shapes, another model
    assert "--hidden_dim 16 --num_neighbors 8" in text
    assert "num_encoder_layers" not in text


def test_diffusion_settings_are_architecture(start):
    start(epochs=1).fit()
    with pytest.raises(CheckpointError, match=r"use_discrete_diffusion: True in the checkpoint, False now"):
        start(resume_from="latest", use_discrete_diffusion=False)
    with pytest.raises(CheckpointError, match=r"--num_diffusion_steps 10"):
        start(resume_from="latest", num_diffusion_steps=20)


def test_a_checkpoint_without_history_resumes_with_a_warning(start, capsys):
    first = start(epochs=2)
    first.history.state_dict = lambda: {}
    first.fit()
    capsys.readouterr()
    resumed = start(resume_from="latest", epochs=3)
    assert "has no loss history: the loss curve starts anew at epoch 3" in capsys.readouterr().out
    resumed.fit()
    assert [entry["epoch"] for entry in resumed.history.epochs] == [3]


def test_a_damaged_checkpoint_is_stepped_over_and_said(start, capsys):
    first = start(epochs=2)
    first.fit()
    (first.save_dir / "checkpoint_epoch_2" / "state" / "optimizer.bin").write_bytes(b"")
    (first.save_dir / "best_model" / "config.json").unlink()
    capsys.readouterr()
    resumed = start(resume_from="latest", epochs=3)
    said = capsys.readouterr().out
    assert "optimizer.bin: has 0 bytes instead of" in said
    assert (
        f"Falling back to {first.save_dir / 'checkpoint_epoch_1'}; {first.progress.steps_per_epoch} optimizer" in said
    )
    assert resumed.progress.epoch == 1


def test_a_new_run_does_not_overwrite_another(start):
    start(epochs=1).fit()
    with pytest.raises(CheckpointError, match="Give --resume_from latest"):
        start(epochs=1)


def test_latest_starts_a_run_that_has_no_checkpoint_yet(start, capsys):
    trainer = start(resume_from="latest", epochs=1, hidden_dim=16, use_discrete_diffusion=True)
    assert "has no checkpoint yet: starting from the beginning" in capsys.readouterr().out
    assert trainer.progress.step == 0


def test_a_finished_run_says_so(start, capsys):
    start(epochs=1).fit()
    start(resume_from="latest").fit()
    said = capsys.readouterr().out
    assert "checkpoint_epoch_1: 1 epoch done, of 1 wanted; 1 epoch in the train history" in said
    assert "Nothing to do: 1 of 1 epoch done" in said and "continues with epoch 2" not in said


def test_early_stopping_stops_and_stays_stopped(start, capsys):
    trainer = start(epochs=9, early_stopping_patience=1, early_stopping_min_delta=1e6)
    trainer.fit()
    assert trainer.progress.epoch == 2  # the first is an improvement on nothing
    assert "Stopped early" in capsys.readouterr().out
    resumed = start(resume_from="latest")
    resumed.fit()
    assert resumed.progress.epoch == 2
    assert (trainer.save_dir / "checkpoint_epoch_2").is_dir()


def test_shards_that_do_not_divide_name_the_numbers_that_do(start, monkeypatch):
    trainer = start(gradient_accumulation_steps=4, epochs=1)
    trainer.fit()
    monkeypatch.setattr("protein_model.training.trainer.shards_per_process", lambda shards, processes: refuse(shards))

    def refuse(shards):
        from protein_model.data.batching import shards_per_process

        return shards_per_process(shards, 3)

    with pytest.raises(BatchingError, match="1, 2 or 4 processes"):
        start(resume_from="latest", epochs=2)


def test_losses_fall(start):
    trainer = start(epochs=12, learning_rate=5e-3)
    trainer.fit()
    losses = trainer.history.column("train_loss")
    assert losses[-1] < losses[0] - 0.05
    assert losses[0] == pytest.approx(math.log(20), abs=0.6)


@pytest.mark.parametrize("how", ["stretch", "hold", "rewarm"])
def test_more_epochs_change_the_schedule_as_asked_and_say_so(start, capsys, how):
    first = start(epochs=2)
    first.fit()
    last = first.schedule.rate(first.progress.step - 1)
    capsys.readouterr()
    second = start(resume_from="latest", epochs=5, extend_schedule=how)
    said = capsys.readouterr().out
    assert "Changed on resume: schedule: " in said and f"learning rate {last:.3e} -> " in said
    rates = rates_of(second)
    second.fit()
    per_epoch = first.progress.steps_per_epoch
    if how == "stretch":
        whole = start(save_dir="whole", epochs=5)
        assert rates == [whole.schedule.rate(step) for step in range(2 * per_epoch, 5 * per_epoch)]
    elif how == "hold":
        assert set(rates) == {last}
    else:
        peak = rates.index(max(rates))
        assert 0 < peak <= per_epoch and max(rates) == pytest.approx(first.settings.learning_rate)
    # The next launch of the same command goes on with the same schedule.
    again = start(
        resume_from=str(second.save_dir / "checkpoint_epoch_3"), epochs=5, extend_schedule=how, save_dir="again"
    )
    assert again.schedule == second.schedule


def test_resets_for_fine_tuning(start, capsys):
    first = start(epochs=2)
    first.fit()
    capsys.readouterr()
    tuned = start(
        resume_from=str(first.save_dir / "best_model"),
        save_dir="tuned",
        epochs=4,
        learning_rate=1e-4,
        reset_optimizer=True,
        reset_schedule=True,
    )
    assert "The optimizer state is new (--reset_optimizer)." in capsys.readouterr().out
    assert not tuned.optimizer.optimizer.state_dict()["state"]
    rates = rates_of(tuned)
    tuned.fit()
    assert rates[0] == pytest.approx(1e-4 / (tuned.schedule.warmup_steps + 1))
    assert max(rates) == pytest.approx(1e-4) and rates[-1] < max(rates)
    assert [entry["epoch"] for entry in tuned.history.epochs] == [1, 2, 3, 4]


def test_resets_need_something_to_resume(start):
    with pytest.raises(SettingsError, match="--reset_schedule goes with --resume_from"):
        start(reset_schedule=True)


def test_other_validation_structures_look_for_the_best_anew(start, capsys):
    first = start(epochs=1)
    first.fit()
    capsys.readouterr()
    second = start(resume_from="latest", epochs=2, validation_fraction=0.4)
    said = capsys.readouterr().out
    assert "WARNING: changed on resume: validation_structures: 2 in the checkpoint, " in said
    assert "WARNING: changed on resume: validation_set: " in said
    assert second.best.loss == math.inf
    second.fit()
    assert second.best.epoch == 2


def test_a_dry_run_tells_and_changes_nothing(start, capsys):
    first = start(epochs=2)
    first.fit()
    before = {path: path.stat().st_mtime_ns for path in first.save_dir.rglob("*")}
    capsys.readouterr()
    start(resume_from="checkpoint_epoch_1", epochs=3, learning_rate=1e-4, dry_run=True)
    said = capsys.readouterr().out
    assert "checkpoint_epoch_1: continues with epoch 2 of 3" in said
    assert "Changed on resume: learning_rate: 0.001 in the checkpoint, 0.0001 now" in said
    assert {path: path.stat().st_mtime_ns for path in first.save_dir.rglob("*")} == before


def test_with_fewer_steps_in_an_epoch_nothing_is_lost_by_a_kill_before_the_next_save(start, capsys):
    first = start(epochs=2)
    first.fit()
    again = start(resume_from="latest", epochs=3, batch_residues=900)
    again.store.unlock()  # and it is killed here
    steps = again.progress.steps_per_epoch
    assert steps < first.progress.steps_per_epoch
    assert "Set aside, its epochs have" in capsys.readouterr().out
    assert first.best.epoch == 2 and verify(first.save_dir / "best_model").step == 2 * steps
    last = start(resume_from="latest", epochs=3)
    assert last.progress.epochs_recorded == 2 and last.progress.step == 2 * steps
    last.fit()
    assert [entry["epoch"] for entry in last.history.epochs] == [1, 2, 3]
    assert CheckpointStore(last.save_dir).resumable()[0].name == "checkpoint_epoch_3"
