"""Reverse diffusion: from no sequence at all, step by step, to sequences for given backbones.

Random numbers belong to (seed, name of the structure, sample), so a design is the same alone or in a batch with others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..model.decoder import NUM_RESIDUE_TYPES
from ..model.diffusion import inverse_cdf
from ..model.modeling import ProteinModel
from ..randomness import derived_seed
from ..structures import Structure
from .inputs import backbone_batch

DEFAULT_STEPS = 32
DEFAULT_TEMPERATURE = 0.1


class SamplingError(UserError, ValueError):
    """A setting of sampling is out of its range."""


@dataclass(frozen=True)
class Designs:
    """Sequences sampled for one structure of `L` residues.

    Attributes
    ----------
    residue_type : (samples, L) int8; 20 (X) where the backbone is incomplete and nothing was designed
    score : (samples,) float32, mean negative log-probability in nats that the model, at temperature 1, gave to the
        chosen residue types at the moment they were chosen; lower is better
    """

    residue_type: np.ndarray
    score: np.ndarray


def noise_ladder(model: ProteinModel, num_steps: int) -> list[float]:
    """Retentions (alpha bar) that sampling visits: num_steps + 1 values from 0, nothing known, up to 1, clean.

    They are spread evenly over the time of the model's diffusion; a model that predicts all residues in one pass takes
    one step.

    Raises
    ------
    SamplingError : num_steps is below 1
    """
    if num_steps < 1:
        raise SamplingError(f"the number of denoising steps must be at least 1, but is {num_steps}")
    if not model.config.use_discrete_diffusion:
        num_steps = 1
    times = torch.linspace(model.diffusion.num_steps, 0, num_steps + 1, dtype=torch.float64)
    return [float(alpha) for alpha in model.diffusion.alpha_bar(times)]


@torch.no_grad()
def sample_sequences(
    model: ProteinModel,
    structures: Sequence[Structure],
    num_sequences: int,
    temperature: float = DEFAULT_TEMPERATURE,
    num_steps: int = DEFAULT_STEPS,
    seed: int = 0,
) -> list[Designs]:
    """Sample sequences for backbones by ancestral sampling.

    Parameters
    ----------
    model : in evaluation mode
    structures : only their backbones are looked at
    num_sequences : samples for each structure
    temperature : logits are divided by it; 0 takes the most probable type
    num_steps : denoising steps, independent of those in training; at 1 all residues are chosen at once
    seed : with the same seed, structure and settings the samples are the same

    Returns
    -------
    one `Designs` for each structure

    Raises
    ------
    SamplingError : temperature, num_steps or num_sequences is out of its range
    """
    if temperature < 0:
        raise SamplingError(f"the temperature must be at least 0, but is {temperature}")
    if num_sequences < 1:
        raise SamplingError(f"the number of sequences must be at least 1, but is {num_sequences}")
    ladder = noise_ladder(model, num_steps)
    device = next(model.parameters()).device
    batch = backbone_batch(structures, device)
    encoded = batch.encode(model)
    total = len(batch.structure_index)
    usable = batch.backbone_mask
    uniform = torch.cat(
        [_uniform_numbers(seed, structure, num_sequences, len(ladder)) for structure in structures], dim=-1
    ).to(device)

    tokens = torch.full((num_sequences, total), NUM_RESIDUE_TYPES, device=device)
    chosen_log_probability = torch.zeros(num_sequences, total, device=device)
    for step, (alpha, next_alpha) in enumerate(pairwise(ladder)):
        level = torch.full((num_sequences, len(batch.lengths)), 1.0 - alpha, device=device)
        logits = model.decode(encoded, tokens, level).float()
        probabilities = _tempered(logits, temperature)
        posterior = model.diffusion.posterior(
            tokens.flatten(), probabilities.flatten(0, 1), alpha_t=alpha, alpha_s=next_alpha
        ).view(num_sequences, total, -1)
        drawn = inverse_cdf(posterior, uniform[step])
        drawn = torch.where(usable, drawn, NUM_RESIDUE_TYPES)
        # Of a residue that is drawn again the latest choice counts.
        changed = (drawn != tokens) & (drawn < NUM_RESIDUE_TYPES)
        log_probability = logits.log_softmax(-1).gather(-1, drawn.clamp(max=NUM_RESIDUE_TYPES - 1)[..., None])[..., 0]
        chosen_log_probability = torch.where(changed, log_probability, chosen_log_probability)
        tokens = drawn
    return [
        Designs(
            residue_type=part.to(torch.int8).cpu().numpy(),
            score=(-(log_p * mask).sum(-1) / mask.sum().clamp(min=1)).cpu().numpy(),
        )
        for part, log_p, mask in zip(
            tokens.split(batch.lengths, dim=1),
            chosen_log_probability.split(batch.lengths, dim=1),
            usable.split(batch.lengths),
            strict=True,
        )
    ]


def _tempered(logits: Tensor, temperature: float) -> Tensor:
    if temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(-1), NUM_RESIDUE_TYPES).to(logits.dtype)
    return (logits / temperature).softmax(-1)


def _uniform_numbers(seed: int, structure: Structure, num_sequences: int, num_steps: int) -> Tensor:
    """(steps, samples, L) numbers for one structure; more samples leave those of the first ones unchanged."""
    columns = []
    for sample in range(num_sequences):
        generator = torch.Generator().manual_seed(derived_seed(seed, "design", structure.name, sample))
        columns.append(torch.rand(num_steps, len(structure), generator=generator, dtype=torch.float64))
    return torch.stack(columns, dim=1)
