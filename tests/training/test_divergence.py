"""A loss or gradient that is not finite never reaches the weights, and is dealt with as the options say."""

import math

import pytest
import torch

from protein_model.training.checkpoints import CheckpointStore
from protein_model.training.divergence import MAX_SKIPS_IN_A_ROW, RunDiverged


def poison(trainer, steps, kind="gradient"):
    """Let the gradient or the loss of some optimizer steps be NaN, whenever they come."""
    accumulate = trainer.steps.accumulate

    def poisoned(batch, step, micro_step):
        accumulate(batch, step, micro_step)
        if step in steps:
            if kind == "gradient":
                trainer.steps.parameters[3].grad.view(-1)[0] = math.nan
            else:
                trainer.steps._step_sums[0] = math.inf

    trainer.steps.accumulate = poisoned
    return trainer


@pytest.mark.parametrize("kind", ["gradient", "loss"])
def test_skip_leaves_the_step_out_and_names_the_structures(start, capsys, kind):
    trainer = poison(start(epochs=2), {1}, kind)
    trainer.fit()
    said = capsys.readouterr().out
    assert "loss or gradient of optimizer step 2 is not finite; structures of its batch: " in said
    [event] = trainer.history.divergences
    assert (event["step"], event["action"]) == (1, "skip")
    assert set(event["structures"]) <= set(trainer.data.cache.names) and event["structures"]
    assert all(torch.isfinite(parameter).all() for parameter in trainer.steps.parameters)
    steps = {float(entry["step"]) for entry in trainer.optimizer.optimizer.state_dict()["state"].values()}
    assert steps == {trainer.progress.step - 1.0}


def test_rollback_goes_back_and_leaves_the_step_out(start, capsys):
    trainer = poison(start(epochs=3, save_every_steps=2, on_divergence="rollback"), {3})
    trainer.fit()
    said = capsys.readouterr().out
    assert "checkpoint_step_2, 1 optimizer step is done again, and this one is left out" in said
    assert trainer.progress.skipped_steps == [3]
    assert [entry["epoch"] for entry in trainer.history.epochs] == [1, 2, 3]
    assert all(torch.isfinite(parameter).all() for parameter in trainer.steps.parameters)
    # What was learned survives: another launch leaves the step out too.
    resumed = start(resume_from="latest", epochs=4)
    assert resumed.progress.skipped_steps == [3]
    assert resumed.history.divergences == trainer.history.divergences


def test_a_rollback_to_the_checkpoint_resumed_from_keeps_what_the_resume_changed(start, capsys):
    """An epoch has more steps than when it was written, and other settings; no file says so yet."""
    first = start(epochs=1)
    first.fit()
    options = {"batch_residues": 200, "weight_decay": 0.5, "ema_decay": 0.5, "on_divergence": "rollback"}
    again = start(resume_from="latest", epochs=2, **options)
    steps = again.progress.steps_per_epoch
    assert steps > first.progress.steps_per_epoch
    capsys.readouterr()
    poison(again, {steps + 1}).fit()
    assert "1 optimizer step is done again, and this one is left out" in capsys.readouterr().out
    assert again.progress.steps_per_epoch == steps and again.progress.step == 2 * steps
    assert [entry["epoch"] for entry in again.history.epochs] == [1, 2]
    assert [event["step"] for event in again.history.divergences] == [steps + 1]
    assert [resume["step"] for resume in again.history.resumes] == [steps]
    assert (again.optimizer.param_groups[0]["weight_decay"], again.average.decay) == (0.5, 0.5)


def test_a_rollback_to_the_checkpoint_resumed_from_resets_the_optimizer_again(start):
    start(epochs=1).fit()
    again = start(resume_from="latest", epochs=2, reset_optimizer=True, on_divergence="rollback")
    first = again.progress.step
    poison(again, {first + 2}).fit()
    steps = {float(entry["step"]) for entry in again.optimizer.optimizer.state_dict()["state"].values()}
    assert steps == {again.progress.step - first - 1.0}


def test_rollbacks_are_limited(start):
    trainer = poison(start(save_every_steps=1, on_divergence="rollback", max_rollbacks=2), {2, 3, 4, 6})
    with pytest.raises(RunDiverged, match="2 rollbacks are done, and --max_rollbacks allows no more"):
        trainer.fit()


def test_rollback_without_a_checkpoint_stops(start):
    with pytest.raises(RunDiverged, match="no checkpoint to go back to"):
        poison(start(on_divergence="rollback"), {0}).fit()


def test_stop_stops_before_the_weights_are_touched(start):
    trainer = poison(start(on_divergence="stop"), {1})
    with pytest.raises(RunDiverged, match="--on_divergence stop"):
        trainer.fit()
    assert all(torch.isfinite(parameter).all() for parameter in trainer.steps.parameters)
    assert not CheckpointStore(trainer.save_dir).checkpoints()


def test_skipping_all_the_time_stops(start):
    trainer = poison(start(epochs=50), set(range(3, 1000)))
    with pytest.raises(RunDiverged, match=f"{MAX_SKIPS_IN_A_ROW} times in a row"):
        trainer.fit()
