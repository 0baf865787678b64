"""One optimizer step: forward and backward passes of its micro-batches, and the update of the weights.

The loss of a step is the mean over all scored residues of the global batch, however it is cut into shards, micro-steps
and processes. Everything random is a function of (seed, step, shard). Which step comes next, and what to do about one
that is not finite, is left to `trainer` and `divergence`.
"""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import DistributedType, send_to_device
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..data.collate import FlatBatch, collate, model_inputs
from ..model.decoder import NUM_RESIDUE_TYPES
from ..model.modeling import ProteinModel, sequence_loss
from ..randomness import derived_seed
from .arguments import Settings
from .averaging import WeightAverage
from .reduction import OrderedReduction
from .slices import own_slice, whole

_NON_AVERAGING = (DistributedType.NO,)
_SUMS = ("nll", "correct", "scored", "residues")


@dataclass(frozen=True)
class StepResult:
    """One optimizer step.

    Attributes
    ----------
    learning_rate : it was taken with
    gradient_norm : before clipping
    stop_requested : some process has received a signal
    finite : loss and gradient were finite, so that the step was taken
    loss : nats per scored residue; NaN where the step is left out
    residues : on all processes
    """

    learning_rate: float
    gradient_norm: float
    stop_requested: bool
    finite: bool
    loss: float
    residues: float


class OptimizerSteps:
    """Takes the steps of a run.

    Parameters
    ----------
    accelerator : joins the processes
    model, optimizer : as `Accelerator.prepare` gave them
    average : of the weights, brought up to date after each step
    settings : of the run
    micro_steps : micro-batches of this process in a step
    nominal_residues : scored residues of a typical micro-batch. Losses are divided by it before the backward pass, so
        that 16-bit gradients stay in range, and brought to the exact mean over the global batch afterwards.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        optimizer: AcceleratedOptimizer,
        average: WeightAverage,
        settings: Settings,
        micro_steps: int,
        nominal_residues: float,
    ):
        self._accelerator = accelerator
        self._model = model
        self._network: ProteinModel = accelerator.unwrap_model(model)
        self._optimizer = optimizer
        self._average = average
        self._settings = settings
        self._micro_steps = micro_steps
        self._nominal_residues = nominal_residues
        self.parameters = [parameter for parameter in self._network.parameters() if parameter.requires_grad]
        self._reduction = OrderedReduction(accelerator, self.parameters) if settings.deterministic else None
        self._step_sums = torch.zeros(len(_SUMS), dtype=torch.float64, device=accelerator.device)
        self._epoch_sums = torch.zeros_like(self._step_sums)
        self._epoch_started = time.monotonic()
        self._rows: list[torch.Tensor] = []

    def accumulate(self, batch: FlatBatch, step: int, micro_step: int) -> None:
        """Forward and backward pass of one micro-batch of optimizer step `step`."""
        device, settings = self._accelerator.device, self._settings
        shard = self._accelerator.process_index + micro_step * self._accelerator.num_processes
        generator = torch.Generator(device).manual_seed(derived_seed(settings.seed, "corruption", step, shard))
        torch.manual_seed(derived_seed(settings.seed, "dropout", step, shard))

        labels, usable = batch["residue_type"], batch["backbone_mask"]
        diffusion = self._network.diffusion
        times = diffusion.sample_times(len(batch["row"]), settings.fully_masked_fraction, generator)
        tokens, corrupted = diffusion.corrupt(labels, times, batch["structure_index"], generator)
        tokens = torch.where(usable, tokens, NUM_RESIDUE_TYPES)
        inputs: dict[str, Any] = model_inputs(batch)
        if settings.backbone_noise:
            noise = torch.randn(batch["backbone"].shape, generator=generator, device=device)
            inputs["backbone"] = batch["backbone"] + settings.backbone_noise * noise

        apart = self._reduction is not None or micro_step < self._micro_steps - 1
        with self._accelerator.no_sync(self._model) if apart else contextlib.nullcontext():
            with self._accelerator.autocast():  # which Accelerate leaves out where the model is sharded
                output = self._model(**inputs, tokens=tokens, noise_level=diffusion.noise_level(times))
            sums = sequence_loss(output.logits, labels, corrupted & usable, settings.label_smoothing)
            self._accelerator.backward(sums.objective / self._nominal_residues)
        residues = torch.tensor(float(len(labels)), device=device)
        shard_sums = torch.stack([sums.nll.detach(), sums.correct, sums.count, residues]).double()
        self._rows.append(batch["row"])
        if self._reduction is None:
            self._step_sums += shard_sums
        else:
            self._reduction.add(shard_sums)

    def settle_buckets(self) -> None:
        """Let data-parallel training lay out its buckets of gradients before the first step.

        It lays them out anew after the first backward pass of a launch, and from three processes on, the layout decides
        in which order they are summed. A run that is resumed has to sum its first step as one that goes on does.
        """
        if self._reduction is not None or not isinstance(self._model, DistributedDataParallel):
            return
        self._model.train()
        self.accumulate(send_to_device(collate([]), self._accelerator.device), 0, self._micro_steps - 1)
        self.discard()

    def discard(self) -> None:
        """Forget what was accumulated."""
        self._optimizer.zero_grad()
        self._step_sums.zero_()
        self._rows.clear()

    def update(self, rate: float, stop_requested: bool, left_out: bool = False) -> StepResult:
        """Change the weights by the mean loss over all scored residues of the global batch.

        Parameters
        ----------
        rate : learning rate
        stop_requested : this process was asked to stop
        left_out : nothing was accumulated and nothing is changed
        """
        stop = torch.tensor([float(stop_requested)], dtype=torch.float64, device=self._accelerator.device)
        if left_out:
            return StepResult(rate, 0.0, bool(self._accelerator.reduce(stop, "sum").item()), True, math.nan, 0.0)
        if self._reduction is None:
            reduced = self._accelerator.reduce(torch.cat([self._step_sums, stop]), "sum")
            totals, stop = reduced[:-1], reduced[-1:]
            averaged = self._accelerator.distributed_type not in _NON_AVERAGING
            summed = self._accelerator.num_processes if averaged else 1
        else:
            totals, stop, summed = self._reduction.finish(), self._accelerator.reduce(stop, "sum"), 1
        self._accelerator.unscale_gradients(self._optimizer)
        gradients = [own_slice(parameter.grad) for parameter in self.parameters if parameter.grad is not None]
        scored = totals[_SUMS.index("scored")].clamp(min=1)
        torch._foreach_mul_(gradients, (summed * self._nominal_residues / scored).float())
        norm = whole(torch.nn.utils.clip_grad_norm_(self.parameters, self._settings.max_grad_norm))
        # The one moment of a step in which the device is waited for: what is seen here decides whether it is taken.
        gradient_norm, stopping, loss, _, count, residues = torch.cat([norm.double()[None], stop, totals]).tolist()
        # Gradients that overflow in fp16 are the gradient scaler's business: it leaves the step out and scales less.
        finite = math.isfinite(loss) and (math.isfinite(gradient_norm) or self._accelerator.scaler is not None)
        if finite:
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            self._optimizer.step()
            self._average.update()
            self._epoch_sums += totals
            self._rows.clear()
        self._optimizer.zero_grad()
        self._step_sums.zero_()
        return StepResult(rate, gradient_norm, bool(stopping), finite, loss / max(count, 1.0), residues)

    def rows_of_refused_step(self) -> list[int]:
        """Rows of the cache that this process had in the step that was not taken."""
        rows = [row for rows in self._rows for row in rows.tolist() if row >= 0]
        self._rows.clear()
        return rows

    def restart_sums(self, sums: dict[str, float]) -> None:
        """Continue the sums of an epoch from those that `collect_sums` gave."""
        values = [sums[name] for name in _SUMS]
        self._epoch_sums = torch.tensor(values, dtype=torch.float64).to(self._accelerator.device)
        self._epoch_started = time.monotonic() - sums["seconds"]

    def collect_sums(self) -> dict[str, float]:
        """Sums over the epoch so far: nll (nats), correct, scored, residues, seconds; waits for the device."""
        sums = dict(zip(_SUMS, self._epoch_sums.tolist(), strict=True))
        return {**sums, "seconds": time.monotonic() - self._epoch_started}
