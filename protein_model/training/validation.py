"""Losses on the validation structures, each counted exactly once on any number of processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from accelerate import Accelerator

from ..data.collate import FlatBatch, model_inputs
from ..model.decoder import NUM_RESIDUE_TYPES
from ..model.modeling import ProteinModel, sequence_loss
from ..randomness import derived_seed


@dataclass(frozen=True)
class ValidationResult:
    """Residue-weighted means over the validation structures.

    Attributes
    ----------
    loss : nats per scored residue, at noise levels drawn as in training, the same ones at every validation
    one_shot_perplexity : exp(nats per residue) of the native sequence, all residues predicted from the backbone alone
    one_shot_recovery : share of residues whose most probable type, from the backbone alone, is the native one
    residues : scored in the one-shot prediction
    """

    loss: float
    one_shot_perplexity: float
    one_shot_recovery: float
    residues: int


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
    for index, batch in enumerate(loader):
        if should_stop():
            return None
        micro_batch = accelerator.process_index + index * accelerator.num_processes
        generator = torch.Generator(device).manual_seed(derived_seed(seed, "validation", micro_batch))
        labels, usable, structure_index = batch["residue_type"], batch["backbone_mask"], batch["structure_index"]
        times = model.diffusion.sample_times(len(batch["row"]), fully_masked_fraction, generator)
        tokens, corrupted = model.diffusion.corrupt(labels, times, structure_index, generator)
        nothing = torch.full_like(labels, NUM_RESIDUE_TYPES)
        with accelerator.autocast():
            encoded = model.encode(**model_inputs(batch))
            denoised = model.decode(encoded, torch.where(usable, tokens, nothing), model.diffusion.noise_level(times))
            from_nothing = model.decode(encoded, nothing, torch.ones_like(times, dtype=torch.float32))
        at_noise = sequence_loss(denoised, labels, corrupted & usable)
        one_shot = sequence_loss(from_nothing, labels, usable & (labels < NUM_RESIDUE_TYPES))
        sums = [at_noise.nll, at_noise.count, one_shot.nll, one_shot.correct, one_shot.count]
        rows.append(torch.stack([value.double() for value in (torch.tensor(micro_batch, device=device), *sums)]))
    gathered = accelerator.gather(torch.stack(rows)).cpu()
    # Exact sums, so that the result does not depend on who computed which, nor on empty micro-batches.
    nll, count, one_shot_nll, correct, residues = (math.fsum(column) for column in gathered[:, 1:].T.tolist())
    return ValidationResult(
        loss=nll / max(count, 1.0),
        one_shot_perplexity=math.exp(one_shot_nll / max(residues, 1.0)),
        one_shot_recovery=correct / max(residues, 1.0),
        residues=int(residues),
    )
