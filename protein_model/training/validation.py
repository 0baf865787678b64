"""Losses on the validation structures, each counted exactly once on any number of processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor

from ..data.collate import FlatBatch, model_inputs
from ..model.decoder import NUM_RESIDUE_TYPES
from ..model.modeling import ProteinModel, sequence_loss
from ..randomness import derived_seed
from .compiling import uncompiled_where_longer
from .signals import shielded


@dataclass(frozen=True)
class ValidationResult:
    """Residue-weighted means over the validation structures.

    Attributes
    ----------
    loss : nats per scored residue, at noise levels drawn as in training, the same ones at every validation
    one_shot_perplexity : exp(nats per residue) of the native sequence, all residues predicted from the backbone alone
    one_shot_recovery : share of residues whose most probable type, from the backbone alone, is the native one
    residues : scored in the one-shot prediction
    loss_by_noise : `loss` of the structures in each fifth of the noise levels, from the least to the most corrupted;
        NaN where no structure was
    examples : row of the cache and one-shot prediction, (L,) int64, of some structures; on the main process only
    """

    loss: float
    one_shot_perplexity: float
    one_shot_recovery: float
    residues: int
    loss_by_noise: tuple[float, ...]
    examples: list[tuple[int, Tensor]]


NOISE_BINS = 5
EXAMPLES = 3


@torch.no_grad()
def validate(
    accelerator: Accelerator,
    model: ProteinModel,
    loader: Iterable[FlatBatch],
    seed: int,
    fully_masked_fraction: float,
    should_stop: Callable[[], bool] = lambda: False,
) -> ValidationResult | None:
    """Measure a model.

    Parameters
    ----------
    model : unwrapped, with the weights to measure; left in evaluation mode
    loader : prepared by the Accelerator, as many micro-batches on every process
    seed, fully_masked_fraction : of the run
    should_stop : asked before every micro-batch, on all processes alike

    Returns
    -------
    None if it was stopped
    """
    model.eval()
    device = accelerator.device
    rows: list[torch.Tensor] = []
    examples: list[tuple[int, Tensor]] = []
    for index, batch in enumerate(shielded(loader)):
        if should_stop():
            return None
        micro_batch = accelerator.process_index + index * accelerator.num_processes
        generator = torch.Generator(device).manual_seed(derived_seed(seed, "validation", micro_batch))
        labels, usable, structure_index = batch["residue_type"], batch["backbone_mask"], batch["structure_index"]
        times = model.diffusion.sample_times(len(batch["row"]), fully_masked_fraction, generator)
        tokens, corrupted = model.diffusion.corrupt(labels, times, structure_index, generator)
        level = model.diffusion.noise_level(times)
        nothing = torch.full_like(labels, NUM_RESIDUE_TYPES)
        with accelerator.autocast(), uncompiled_where_longer(model, len(labels)):
            encoded = model.encode(**model_inputs(batch))
            denoised = model.decode(encoded, torch.where(usable, tokens, nothing), level)
            from_nothing = model.decode(encoded, nothing, torch.ones_like(times, dtype=torch.float32))
        at_noise = sequence_loss(denoised, labels, corrupted & usable)
        one_shot = sequence_loss(from_nothing, labels, usable & (labels < NUM_RESIDUE_TYPES))
        sums = [at_noise.nll, at_noise.count, one_shot.nll, one_shot.correct, one_shot.count]
        noise_bin = ((level * NOISE_BINS).ceil().long() - 1).clamp(0, NOISE_BINS - 1)[structure_index]
        for number in range(NOISE_BINS):
            part = sequence_loss(denoised, labels, corrupted & usable & (noise_bin == number))
            sums += [part.nll, part.count]
        if index == 0 and accelerator.is_main_process:
            predicted = from_nothing.argmax(-1).cpu()
            own = structure_index.cpu()
            examples = [
                (row, predicted[own == place]) for place, row in enumerate(batch["row"].tolist()[:EXAMPLES]) if row >= 0
            ]
        rows.append(torch.stack([value.double() for value in (torch.tensor(micro_batch, device=device), *sums)]))
    gathered = accelerator.gather(torch.stack(rows)).cpu()
    # Exact sums, so that the result does not depend on who computed which, nor on empty micro-batches.
    nll, count, one_shot_nll, correct, residues, *by_noise = (
        math.fsum(column) for column in gathered[:, 1:].T.tolist()
    )
    return ValidationResult(
        # Of very few residues, none may happen to be corrupted; the zero would be the best loss of the whole run.
        loss=nll / count if count else one_shot_nll / max(residues, 1.0),
        one_shot_perplexity=math.exp(one_shot_nll / max(residues, 1.0)),
        one_shot_recovery=correct / max(residues, 1.0),
        residues=int(residues),
        loss_by_noise=tuple(
            noise_nll / noise_count if noise_count else math.nan
            for noise_nll, noise_count in zip(by_noise[::2], by_noise[1::2], strict=True)
        ),
        examples=examples,
    )
