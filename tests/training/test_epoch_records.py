"""What a finished epoch measured, from sums to the entry of the history and the line that is printed."""

from __future__ import annotations

import math

import pytest
import torch

from protein_model.data.cache import build_cache
from protein_model.training.epoch_records import epoch_entry, epoch_line, shown_designs
from protein_model.training.progress import TrainingProgress
from protein_model.training.validation import ValidationResult
from tests.data.structure_files import pdb_text


@pytest.fixture
def result() -> ValidationResult:
    return ValidationResult(1.5, 6.0, 0.425, 100, (1.0, math.nan, 1.5, 1.75, 2.0), [(0, torch.tensor([0, 1, 2]))])


def test_an_entry_has_means_of_the_sums_and_leaves_out_what_was_not_measured(result):
    progress = TrainingProgress(steps_per_epoch=10, shards=1, seed=0)
    progress.step = 20
    progress.epoch_sums = {"nll": 180.0, "correct": 30.0, "scored": 100.0, "residues": 400.0, "seconds": 8.0}
    entry = epoch_entry(progress, result, 1e-3)
    assert (entry["epoch"], entry["step"], entry["learning_rate"]) == (2, 20, 1e-3)
    assert (entry["train_loss"], entry["train_recovery"], entry["residues_per_second"]) == (1.8, 0.3, 50.0)
    assert {name: loss for name, loss in entry.items() if name.startswith("loss_at")} == {
        "loss_at_noise_0_20": 1.0,
        "loss_at_noise_40_60": 1.5,
        "loss_at_noise_60_80": 1.75,
        "loss_at_noise_80_100": 2.0,
    }
    assert epoch_line(entry, 5, improved=True) == (
        "epoch 2/5  train loss 1.8000  validation loss 1.5000 nats/residue (best)  one-shot perplexity 6.00  "
        "recovery 42.5 %  50 residues/s"
    )
    assert "(best)" not in epoch_line(entry, 5, improved=False)


def test_an_epoch_whose_steps_were_all_left_out_has_an_entry_too(result):
    progress = TrainingProgress(steps_per_epoch=10, shards=1, seed=0)
    progress.step = 10
    entry = epoch_entry(progress, result, 0.0)
    assert (entry["train_loss"], entry["residues_per_second"]) == (0.0, 0.0)


def test_designs_stand_below_the_native_sequence(result, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "one.pdb").write_text(pdb_text(12))
    cache = build_cache(tmp_path / "data", tmp_path / "cache", progress=False)
    assert shown_designs(result, cache).splitlines() == [
        cache.names[0],
        f"  native    {cache.sequence(0)}",
        "  predicted ACD",
    ]
