"""Recovery and perplexity of a model on structures with known sequences.

Nothing of the native sequence reaches the logits that one-shot and sampled figures come from: their inputs hold no
residue types. The order-agnostic likelihood shows the model part of the native sequence, as its definition has it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from ..model.decoder import NUM_RESIDUE_TYPES
from ..model.diffusion import order_agnostic_mask
from ..model.modeling import ProteinModel
from ..randomness import derived_seed
from ..structures import Structure
from .inputs import backbone_batch, grouped_by_length
from .metrics import perplexity, recovery, scored_residues
from .sampling import sample_sequences

MAX_RESIDUES = 4000  # per forward pass; bounds memory, not results


@dataclass(frozen=True)
class EvaluationSettings:
    """How sampled figures are made; part of every result.

    Attributes
    ----------
    num_sequences : samples per structure; 0 leaves sampled recovery out
    temperature : of sampling
    num_steps : denoising steps of sampling
    num_orders : Monte Carlo draws per structure for the order-agnostic likelihood; 0 leaves it out
    seed : of all draws
    """

    num_sequences: int = 4
    temperature: float = 0.1
    num_steps: int = 32
    num_orders: int = 8
    seed: int = 0


@dataclass(frozen=True)
class StructureMetrics:
    """Figures of one structure.

    Attributes
    ----------
    name : of the structure
    residues : scored ones: complete backbone, known type
    one_shot_nll : nats over all scored residues, predicted at once from the backbone alone
    one_shot_recovery : share of scored residues whose most probable type is the native one
    order_agnostic_nll : estimate in nats; None where the model has no absorbing diffusion
    sampled_recovery : mean over samples; None where nothing was sampled
    """

    name: str
    residues: int
    one_shot_nll: float
    one_shot_recovery: float
    order_agnostic_nll: float | None
    sampled_recovery: float | None


@torch.no_grad()
def evaluate_structures(
    model: ProteinModel,
    structures: Sequence[Structure],
    settings: EvaluationSettings,
    advance: Callable[[int], object] = lambda count: None,
) -> list[StructureMetrics]:
    """Measure a model on structures, in their order.

    Parameters
    ----------
    model : in evaluation mode
    structures : those without a scored residue give NaN
    advance : called with the number of structures finished
    """
    results: dict[int, StructureMetrics] = {}
    for group in grouped_by_length(structures, MAX_RESIDUES):
        members = [structures[index] for index in group]
        for index, metrics in zip(group, _measure(model, members, settings), strict=True):
            results[index] = metrics
        advance(len(group))
    return [results[index] for index in range(len(structures))]


def _measure(model: ProteinModel, members: list[Structure], settings: EvaluationSettings) -> list[StructureMetrics]:
    device = next(model.parameters()).device
    batch = backbone_batch(members, device)
    encoded = batch.encode(model)
    scored = torch.from_numpy(np.concatenate([scored_residues(member) for member in members])).to(device)
    nothing = torch.full_like(batch.structure_index, NUM_RESIDUE_TYPES)
    logits = model.decode(encoded, nothing, torch.ones(len(members), device=device)).float()
    # Native types are looked up only now, behind the model.
    native = torch.from_numpy(np.concatenate([member.residue_type for member in members]).astype(np.int64)).to(device)
    one_shot = _native_nll(logits, native, scored)
    right = (logits.argmax(-1) == native) & scored

    order_agnostic: list[torch.Tensor] = []
    absorbing = model.config.use_discrete_diffusion and model.config.diffusion_kernel == "absorbing"
    for draw in range(settings.num_orders if absorbing else 0):
        generator = torch.Generator(device).manual_seed(
            derived_seed(settings.seed, "order", draw, *[member.name for member in members])
        )
        masked, weight = order_agnostic_mask(batch.structure_index, scored, generator)
        tokens = torch.where(masked | ~scored, nothing, native)
        per_structure = torch.zeros(len(members), device=device, dtype=torch.float64)
        hidden = per_structure.index_add(0, batch.structure_index, masked.double())
        known = per_structure.index_add(0, batch.structure_index, scored.double())
        level = (hidden / known.clamp(min=1)).float()
        nll = _native_nll(model.decode(encoded, tokens, level).float(), native, masked)
        order_agnostic.append(weight.double() * per_structure.index_add(0, batch.structure_index, nll.double()))
    estimates = torch.stack(order_agnostic).mean(0).tolist() if order_agnostic else [None] * len(members)

    sampled: list[float | None] = [None] * len(members)
    if settings.num_sequences:
        designs = sample_sequences(
            model, members, settings.num_sequences, settings.temperature, settings.num_steps, settings.seed
        )
        sampled = [
            float(recovery(design.residue_type, member).mean()) for design, member in zip(designs, members, strict=True)
        ]
    results = []
    for index, (member, nll, hits, mask) in enumerate(
        zip(
            members, one_shot.split(batch.lengths), right.split(batch.lengths), scored.split(batch.lengths), strict=True
        )
    ):
        count = int(mask.sum())
        results.append(
            StructureMetrics(
                name=member.name,
                residues=count,
                one_shot_nll=float(nll.double().sum()),
                one_shot_recovery=float(hits.sum()) / count if count else math.nan,
                order_agnostic_nll=estimates[index],
                sampled_recovery=sampled[index],
            )
        )
    return results


def _native_nll(logits: torch.Tensor, native: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """(N,) nats of the native type where `counted`, else 0."""
    nll = -logits.log_softmax(-1).gather(-1, native.clamp(max=NUM_RESIDUE_TYPES - 1)[:, None])[:, 0]
    return torch.where(counted, nll, 0.0)


def summarise(metrics: Sequence[StructureMetrics], settings: EvaluationSettings) -> dict[str, object]:
    """Figures over a whole set, with the settings that they depend on.

    Recoveries are the median and the mean over structures, perplexities are over all residues together.
    """
    measured = [entry for entry in metrics if entry.residues]
    residues = [entry.residues for entry in measured]
    summary: dict[str, object] = {
        "structures": len(measured),
        "residues": sum(residues),
        "one_shot_perplexity": perplexity([entry.one_shot_nll for entry in measured], residues),
        "one_shot_recovery_median": _median([entry.one_shot_recovery for entry in measured]),
        "one_shot_recovery_mean": _mean([entry.one_shot_recovery for entry in measured]),
    }
    likelihoods = [entry.order_agnostic_nll for entry in measured if entry.order_agnostic_nll is not None]
    if likelihoods:
        summary["order_agnostic_perplexity"] = perplexity(likelihoods, residues)
    sampled = [entry.sampled_recovery for entry in measured if entry.sampled_recovery is not None]
    if sampled:
        summary["sampled_recovery_median"] = _median(sampled)
        summary["sampled_recovery_mean"] = _mean(sampled)
    summary["settings"] = asdict(settings)
    return summary


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if len(values) else math.nan


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else math.nan
