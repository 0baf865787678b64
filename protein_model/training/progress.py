"""State of a run beside weights and optimizer: where it is, how it went, and how good its best model is.

The objects here are registered with the `Accelerator`, whose `save_state` and `load_state` carry them. Their
`state_dict` holds plain numbers, strings, lists and dictionaries only, so that it can be read back with
`weights_only=True`: a checkpoint from a stranger must not be able to run code.
"""

from __future__ import annotations

import math
from typing import Any

STATE_VERSION = 1


class TrainingProgress:
    """Where a run is. The optimizer step is the cursor; everything about data order follows from it.

    Attributes
    ----------
    step : optimizer steps done
    steps_per_epoch : of the data that the run was last trained on
    shards : micro-batches per optimizer step, over all processes
    seed : of the run
    epochs_recorded : epochs that were validated and are in the history; an epoch whose steps are done but that is not
        among them was interrupted during its validation
    skipped_steps : optimizer steps left out because their loss or gradient was not finite before a rollback
    epoch_sums : over the steps of the unfinished epoch: negative log-likelihood (nats), correct, scored residues,
        residues in all, seconds
    """

    def __init__(self, steps_per_epoch: int, shards: int, seed: int):
        self.step = 0
        self.steps_per_epoch = steps_per_epoch
        self.shards = shards
        self.seed = seed
        self.epochs_recorded = 0
        self.skipped_steps: list[int] = []
        self.epoch_sums = dict.fromkeys(("nll", "correct", "scored", "residues", "seconds"), 0.0)

    @property
    def epoch(self) -> int:
        """Epochs finished."""
        return self.step // self.steps_per_epoch

    @property
    def step_in_epoch(self) -> int:
        """Steps of the unfinished epoch that are done."""
        return self.step % self.steps_per_epoch

    def start_epoch(self) -> None:
        """Forget the sums of the epoch before."""
        self.epoch_sums = dict.fromkeys(self.epoch_sums, 0.0)

    def state_dict(self) -> dict[str, Any]:
        return {
            "version": STATE_VERSION,
            **vars(self),
            "epoch_sums": dict(self.epoch_sums),
            "skipped_steps": list(self.skipped_steps),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = int(state["step"])
        self.steps_per_epoch = int(state["steps_per_epoch"])
        self.shards = int(state["shards"])
        self.seed = int(state["seed"])
        self.epochs_recorded = int(state["epochs_recorded"])
        self.skipped_steps = [int(step) for step in state["skipped_steps"]]
        self.epoch_sums = {name: float(state["epoch_sums"][name]) for name in self.epoch_sums}


def loss_at_noise(number: int) -> str:
    """Name of the validation loss in one fifth of the noise levels, 0 to 4, such as `loss_at_noise_20_40` (percent)."""
    return f"loss_at_noise_{20 * number}_{20 * number + 20}"


class LossHistory:
    """What every finished epoch measured, and where the run was resumed.

    Attributes
    ----------
    epochs : one dictionary per finished epoch: epoch (from 1), step, train_loss, validation_loss (nats per residue) ...
    resumes : one dictionary per resume: step and epoch (a fraction) that it went on from, checkpoint
    divergences : one dictionary per step whose loss or gradient was not finite: step, epoch (a fraction), action
        ("skip" or "rollback"), structures
    """

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []
        self.resumes: list[dict[str, Any]] = []
        self.divergences: list[dict[str, Any]] = []

    def column(self, name: str) -> list[float]:
        """One measurement over all epochs; NaN where an epoch does not have it."""
        return [float(entry.get(name, math.nan)) for entry in self.epochs]

    def state_dict(self) -> dict[str, Any]:
        return {
            "version": STATE_VERSION,
            "epochs": list(self.epochs),
            "resumes": list(self.resumes),
            "divergences": list(self.divergences),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epochs = [dict(entry) for entry in state.get("epochs", [])]
        self.resumes = [dict(entry) for entry in state.get("resumes", [])]
        self.divergences = [dict(entry) for entry in state.get("divergences", [])]


class BestValidation:
    """The lowest validation loss so far, and how long ago it was.

    Attributes
    ----------
    loss : nats per scored residue, infinite before the first validation
    epoch : that reached it, 0 before the first validation
    epochs_without_improvement : since an epoch was better by at least the early-stopping margin
    """

    def __init__(self) -> None:
        self.loss = math.inf
        self.epoch = 0
        self.epochs_without_improvement = 0
        self._patience_reference = math.inf

    def forget(self) -> None:
        """Look for the best anew: losses on other validation structures do not compare."""
        self.__init__()  # type: ignore[misc]

    def update(self, loss: float, epoch: int, min_delta: float) -> bool:
        """Take in an epoch's validation loss; True if it is the best so far."""
        if loss < self._patience_reference - min_delta:
            self._patience_reference = loss
            self.epochs_without_improvement = 0
        else:
            self.epochs_without_improvement += 1
        if not loss < self.loss:
            return False
        self.loss, self.epoch = loss, epoch
        return True

    def state_dict(self) -> dict[str, Any]:
        return {
            "version": STATE_VERSION,
            "loss": self.loss,
            "epoch": self.epoch,
            "epochs_without_improvement": self.epochs_without_improvement,
            "patience_reference": self._patience_reference,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loss = float(state["loss"])
        self.epoch = int(state["epoch"])
        self.epochs_without_improvement = int(state["epochs_without_improvement"])
        self._patience_reference = float(state["patience_reference"])
