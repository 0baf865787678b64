"""Registered state survives a round trip through a file that is read without running code."""

import math

import torch

from protein_model.training.averaging import WeightAverage
from protein_model.training.progress import BestValidation, LossHistory, TrainingProgress


def through_file(state, tmp_path):
    torch.save(state, tmp_path / "state.pkl")
    return torch.load(tmp_path / "state.pkl", weights_only=True)


def test_progress(tmp_path):
    progress = TrainingProgress(steps_per_epoch=7, shards=8, seed=3)
    progress.step = 24
    progress.epoch_sums["nll"] = 0.1 + 0.2
    again = TrainingProgress(1, 1, 0)
    again.load_state_dict(through_file(progress.state_dict(), tmp_path))
    assert vars(again) == vars(progress)
    assert (again.epoch, again.step_in_epoch) == (3, 3)


def test_history(tmp_path):
    history = LossHistory()
    history.epochs.append({"epoch": 1, "train_loss": 2.5})
    history.resumes.append({"epoch": 1.5, "step": 3, "checkpoint": "x"})
    again = LossHistory()
    again.load_state_dict(through_file(history.state_dict(), tmp_path))
    assert vars(again) == vars(history)
    assert again.column("train_loss") == [2.5]
    assert math.isnan(again.column("validation_loss")[0])


def test_only_a_lower_loss_is_the_best(tmp_path):
    best = BestValidation()
    assert best.update(2.0, 1, min_delta=0.0)
    again = BestValidation()
    again.load_state_dict(through_file(best.state_dict(), tmp_path))
    assert not again.update(2.0, 2, min_delta=0.0)
    assert not again.update(math.nan, 3, min_delta=0.0)
    assert again.update(1.9, 4, min_delta=0.0)
    assert (again.loss, again.epoch) == (1.9, 4)


def test_patience_counts_epochs_below_the_margin_and_slow_progress_adds_up():
    best = BestValidation()
    for epoch, loss in enumerate([2.0, 1.96, 1.92, 1.88], start=1):
        assert best.update(loss, epoch, min_delta=0.1)
    assert best.epochs_without_improvement == 0  # 1.88 is more than the margin below 2.0
    best.update(1.87, 5, min_delta=0.1)
    assert best.epochs_without_improvement == 1


def test_weight_average(tmp_path):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    average = WeightAverage(model, decay=0.9)
    expected = model.weight.detach().clone()
    for updates in range(50):
        with torch.no_grad():
            model.weight.add_(torch.randn(2, 3))
        average.update()
        decay = min(0.9, (1 + updates) / (10 + updates))
        expected = decay * expected + (1 - decay) * model.weight.detach()
    trained = model.weight.detach().clone()
    with average.applied():
        torch.testing.assert_close(model.weight.detach(), expected)
    assert torch.equal(model.weight, trained)
    again = WeightAverage(torch.nn.Linear(3, 2), decay=0.9)
    again.load_state_dict(through_file(average.state_dict(), tmp_path))
    assert again.updates == 50
    assert all(torch.equal(a, b) for a, b in zip(again._average, average._average, strict=True))


def test_no_averaging_is_the_weights_themselves():
    model = torch.nn.Linear(3, 2)
    average = WeightAverage(model, decay=0.0)
    with torch.no_grad():
        model.weight.mul_(3)
    average.update()
    with average.applied():
        weights = model.weight.detach().clone()
    assert torch.equal(weights, model.weight)
