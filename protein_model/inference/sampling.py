"""Reverse diffusion: from no sequence at all, step by step, to sequences for given backbones.

What is chosen is in `constraints`, how in `unmasking` and `resampling`; here structures are put together, random
numbers are dealt out, and results are cut apart again.

The random numbers of a sample are a function of (seed, name of the structure, number of the sample). Structures are
encoded one by one and the decoder works in blocks of one shape, so a design does not depend on which other structures
and samples are computed with it, in which order, or by how many processes. Another type of processor, number of neural
network threads or release of PyTorch may round logits otherwise in their last digits; then a choice can differ where a
random number falls within rounding of the border between two types, or two residues are equally certain to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from ..errors import UserError
from ..model.encoder import EncodedBackbone
from ..model.incremental import sampling_decoder
from ..model.modeling import ProteinModel
from ..randomness import numpy_generator
from ..structures import UNKNOWN_RESIDUE, Structure
from .choices import ChoiceBatch
from .constraints import DESIGNED, DesignPlan, design_plan
from .inputs import encode_separately, grouped_by_length
from .orders import ORDERS
from .resampling import Resampling
from .unmasking import SampledSequences, Unmasking, empty_sequences

DEFAULT_STEPS = 8
DEFAULT_TEMPERATURE = 0.1
DEFAULT_ORDER = "margin"  # of models with the absorbing kernel; others have only "ancestral"
ONE_BY_ONE = "L"  # number of steps: one residue at a time

# Bounds of memory, not of results: residues that are encoded together, and residues times samples decoded together.
MAX_RESIDUES = {"cpu": 3_000, "cuda": 30_000}
MAX_PAIRS = {"cpu": 40_000, "cuda": 400_000}

Steps = int | Literal["L"]


class SamplingError(UserError, ValueError):
    """A setting of sampling is out of its range."""


@dataclass(frozen=True)
class Designs:
    """Sequences sampled for one structure of `L` residues.

    Attributes
    ----------
    residue_type : (samples, L) int8; 20 (X) where the backbone is incomplete, or the type of a fixed residue is unknown
    score : (samples,) float32, mean over the designed residues of the negative log-probability in nats that the model,
        at temperature 1 and without biases, gave to the type at the moment it was chosen; lower is better
    log_probability : (samples, L) float32, these log-probabilities; NaN for residues that were not designed, or that
        only follow a residue that they are tied to
    designed : (L,) bool, residues that were given a type
    """

    residue_type: np.ndarray
    score: np.ndarray
    log_probability: np.ndarray
    designed: np.ndarray


@dataclass(frozen=True)
class SamplingSettings:
    """How sequences are sampled.

    Attributes
    ----------
    temperature : logits are divided by it; 0 takes the most probable type
    num_steps : denoising steps, independent of those in training; at 1 all residues are chosen at once, with "L" they
        are chosen one at a time
    order : of residues. "ancestral" draws from the model's own distribution, with the absorbing kernel a random number
        of residues at each step; other kernels have nothing else. "random" takes equally many; "confidence" begins with
        the residues whose best type is most probable, "margin" with those where it is furthest ahead of the second
        best. By default "margin" with the absorbing kernel
    remask : share of the residues, those least probable when they were chosen, that are masked and chosen again when
        all others are known, in that share of the steps
    seed : with the same seed, structure and settings the samples are the same

    Raises
    ------
    SamplingError : a setting is out of its range
    """

    temperature: float = DEFAULT_TEMPERATURE
    num_steps: Steps = DEFAULT_STEPS
    order: str | None = None
    remask: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise SamplingError(f"--temperature must be a number of at least 0, but is {self.temperature}")
        if self.num_steps != ONE_BY_ONE and not (isinstance(self.num_steps, int) and self.num_steps >= 1):
            raise SamplingError(
                f"--num_steps must be at least 1, or L for one residue at a time, but is {self.num_steps!r}"
            )
        if self.order is not None and self.order not in ORDERS:
            raise SamplingError(f"--order must be one of {', '.join(ORDERS)}, but is {self.order!r}")
        if not 0 <= self.remask <= 1:
            raise SamplingError(f"--remask must be a share of the residues from 0 to 1, but is {self.remask}")


def settings_for(model: ProteinModel, settings: SamplingSettings) -> SamplingSettings:
    """The settings as they are for a model: with an order, and one step where it predicts all residues in one pass.

    Raises
    ------
    SamplingError : the order or remasking is none of the model's diffusion
    """
    if model.config.use_discrete_diffusion and model.diffusion.absorbing:
        return replace(settings, order=settings.order or DEFAULT_ORDER)
    what = "has a kernel without a mask" if model.config.use_discrete_diffusion else "predicts all residues in one pass"
    if settings.order not in (None, "ancestral") or settings.remask:
        raise SamplingError(f"orders and remasking are for models with absorbing diffusion; this one {what}")
    steps = settings.num_steps if model.config.use_discrete_diffusion else 1
    return replace(settings, order="ancestral", num_steps=steps)


class Sampler:
    """Encoded backbones and what is to be chosen on them; made once for any number of samples and temperatures.

    Parameters
    ----------
    model : in evaluation mode
    structures : only their backbones are looked at, and the types of residues that plans keep
    plans : one for each structure; by default all residues are designed
    encoded : what the encoder gives for these structures and the visible residues of these plans; by default it is run

    Raises
    ------
    ValueError : there is no structure
    """

    @torch.inference_mode()
    def __init__(
        self,
        model: ProteinModel,
        structures: Sequence[Structure],
        plans: Sequence[DesignPlan] | None = None,
        encoded: EncodedBackbone | None = None,
    ):
        if not structures:
            raise ValueError("there is no structure to design")
        self.plans = [design_plan(structure) for structure in structures] if plans is None else list(plans)
        self.names = [structure.name for structure in structures]
        self.lengths = [len(structure) for structure in structures]
        self.device = next(model.parameters()).device
        self._model = model
        self._choices = ChoiceBatch(self.plans, self.device)
        if encoded is None:
            encoded = encode_separately(model, structures, [plan.visible for plan in self.plans])
        self._decoder = sampling_decoder(model.decoder, encoded)

    @torch.inference_mode()
    def sample(self, num_sequences: int, settings: SamplingSettings) -> list[Designs]:
        """Designs for each structure.

        Raises
        ------
        SamplingError : there is less than one sequence to sample, or the order or remasking is none of the model's
            kernel
        """
        if num_sequences < 1:
            raise SamplingError(f"--num_sequences must be at least 1, but is {num_sequences}")
        settings = settings_for(self._model, settings)
        at_once = max(1, max_pairs(self.device) // sum(self.lengths))
        parts = [
            self._sample(range(first, min(first + at_once, num_sequences)), settings)
            for first in range(0, num_sequences, at_once)
        ]
        return [_joined(each) for each in zip(*parts, strict=True)]

    def _sample(self, samples: range, settings: SamplingSettings) -> list[Designs]:
        self._decoder.begin()
        shows_fixed = self._model.config.use_discrete_diffusion  # others have never been shown a residue
        sequences = empty_sequences(self._choices, len(samples), shows_fixed)
        num_steps = None if settings.num_steps == ONE_BY_ONE else int(settings.num_steps)
        generators = [
            [numpy_generator(settings.seed, "design", name, sample) for sample in samples] for name in self.names
        ]
        if self._model.diffusion.absorbing:
            drawn = [
                np.stack([generator.random((4, length)) for generator in row], axis=-1)
                for row, length in zip(generators, self.lengths, strict=True)
            ]
            uniform = np.concatenate(drawn, axis=1)[:, self._choices.leaders]
            Unmasking(self._decoder, self._choices, self.lengths).run(
                sequences, uniform, settings.temperature, num_steps, settings.order or DEFAULT_ORDER, settings.remask
            )
        else:
            Resampling(self._decoder, self._model.diffusion, self._choices, self.lengths).run(
                sequences, generators, settings.temperature, num_steps
            )
        return self._designs(sequences)

    def _designs(self, sequences: SampledSequences) -> list[Designs]:
        types = sequences.unit_type.T.cpu().numpy().astype(np.int8)
        log_probability = sequences.log_probability.T.cpu().numpy()
        designs = []
        first_row = first_unit = 0
        for plan, length, count in zip(self.plans, self.lengths, self._choices.sizes, strict=True):
            chosen = np.concatenate(
                [types[:, first_unit : first_unit + count], np.full((len(types), 1), -1, np.int8)], 1
            )
            kept = np.where(plan.fixed_type == DESIGNED, UNKNOWN_RESIDUE, plan.fixed_type)
            residue_type = np.where(plan.designed, chosen[:, plan.unit], kept).astype(np.int8)
            counted = plan.designed & plan.visible
            own = np.where(counted, log_probability[:, first_row : first_row + length], np.nan).astype(np.float32)
            score = -own[:, counted].astype(np.float64).sum(1) / max(1, int(counted.sum()))
            designs.append(Designs(residue_type, score.astype(np.float32), own, plan.designed))
            first_row += length
            first_unit += count
        return designs


def sample_sequences(
    model: ProteinModel,
    structures: Sequence[Structure],
    num_sequences: int,
    temperature: float = DEFAULT_TEMPERATURE,
    num_steps: Steps = DEFAULT_STEPS,
    seed: int = 0,
    *,
    order: str | None = None,
    remask: float = 0.0,
    plans: Sequence[DesignPlan] | None = None,
    advance: Callable[[int], object] = lambda count: None,
) -> list[Designs]:
    """Sample sequences for backbones.

    Parameters
    ----------
    model : in evaluation mode
    structures : of any lengths; they are encoded once and decoded together as memory allows
    num_sequences : samples for each structure
    temperature, num_steps, seed, order, remask : see `SamplingSettings`
    plans : what is designed in each structure; by default everything
    advance : called with the number of structures finished

    Returns
    -------
    one `Designs` for each structure, in their order

    Raises
    ------
    SamplingError : a setting is out of its range
    """
    settings = SamplingSettings(temperature, num_steps, order, remask, seed)
    plans = [design_plan(structure) for structure in structures] if plans is None else plans
    results: dict[int, Designs] = {}
    limit = max_residues(next(model.parameters()).device)
    for group in grouped_by_length(structures, limit):
        sampler = Sampler(model, [structures[index] for index in group], [plans[index] for index in group])
        results.update(zip(group, sampler.sample(num_sequences, settings), strict=True))
        advance(len(group))
    return [results[index] for index in range(len(structures))]


def max_residues(device: torch.device) -> int:
    """Residues that are worth encoding together on a device."""
    return MAX_RESIDUES["cpu" if device.type == "cpu" else "cuda"]


def max_pairs(device: torch.device) -> int:
    """Residues times sequences that are worth decoding together on a device."""
    return MAX_PAIRS["cpu" if device.type == "cpu" else "cuda"]


def _joined(parts: Sequence[Designs]) -> Designs:
    if len(parts) == 1:
        return parts[0]
    return Designs(
        residue_type=np.concatenate([part.residue_type for part in parts]),
        score=np.concatenate([part.score for part in parts]),
        log_probability=np.concatenate([part.log_probability for part in parts]),
        designed=parts[0].designed,
    )
