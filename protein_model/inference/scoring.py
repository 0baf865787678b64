"""How probable a model finds sequences on a backbone, residue by residue and in total, and what each mutation changes.

Three likelihoods, by what the model is shown when it predicts a residue: nothing of the sequence (one-shot), a random
part of it (order-agnostic, the likelihood of decoding one by one in a random order), or all the rest (conditional; its
total is a pseudo-likelihood). Masks and totals of the order-agnostic one are those of the evaluation, so that both give
the same figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..errors import UserError
from ..model.decoding import SequenceDecoder
from ..model.modeling import ProteinModel
from ..structures import UNKNOWN_RESIDUE, Structure
from .constraints import DESIGNED, NUM_RESIDUE_TYPES, Constraints, design_plan
from .inputs import encode_separately
from .masked_logits import masked_logits
from .native_likelihood import MaskedPredictions, order_agnostic_masks, order_agnostic_nll
from .peer_designs import UnusableRecord, place_sequence
from .records import chain_sequences

LIKELIHOODS = ("order_agnostic", "one_shot", "conditional")
DEFAULT_DRAWS = 16


class ScoringError(UserError, ValueError):
    """A sequence cannot be scored as asked."""


@dataclass(frozen=True, eq=False)
class ScoreResult:
    """Likelihoods of `S` sequences on one structure of `L` residues.

    Attributes
    ----------
    structure : as it was given
    residue_type : (S, L) int8, the sequences
    likelihood : one of `LIKELIHOODS`
    draws : Monte Carlo draws, 0 for likelihoods that need none
    scored : (S, L) bool, residues that count: visible to the model, of known type, not fixed
    total : (S,) float64, log-likelihood in nats, summed over the scored residues
    standard_error : (S,) float64, Monte Carlo standard error of the total; 0 where nothing is drawn, NaN for one draw
    log_probability : (S, L) float64, nats of each residue; NaN where not scored. Where masks are drawn, this is the
        mean over draws with the weights of the total, normalised for each residue by itself, so these add up to about
        the total; a residue that no draw has masked has its one-shot value
    probabilities : (S, L, 20) float64, of all types at each residue, means likewise; NaN where not scored
    log_ratios : (S, L, 20) float64, log-probability of each type minus that of the sequence's own, in nats, means
        likewise: the effects of all single mutations, positive where the model likes the mutant better
    """

    structure: Structure
    residue_type: np.ndarray
    likelihood: str
    draws: int
    scored: np.ndarray
    total: np.ndarray
    standard_error: np.ndarray
    log_probability: np.ndarray
    probabilities: np.ndarray
    log_ratios: np.ndarray

    def __len__(self) -> int:
        return len(self.residue_type)

    @property
    def sequences(self) -> list[str]:
        """One-letter sequences, chains separated by slashes."""
        return [chain_sequences(residue_type, self.structure) for residue_type in self.residue_type]

    @property
    def score(self) -> np.ndarray:
        """(S,) negative log-likelihood in nats per scored residue, lower is better; NaN where none is scored."""
        counts = self.scored.sum(axis=1)
        return np.where(counts > 0, -self.total / np.maximum(counts, 1), np.nan)

    @property
    def perplexity(self) -> np.ndarray:
        """(S,) exp of the score."""
        return np.asarray(np.exp(self.score))


def score(
    model: ProteinModel,
    structure: Structure,
    sequences: Sequence[str] | None = None,
    *,
    likelihood: str | None = None,
    num_draws: int = DEFAULT_DRAWS,
    constraints: Constraints | None = None,
    seed: int = 0,
) -> ScoreResult:
    """Score sequences on a structure.

    Parameters
    ----------
    model : in evaluation mode, as `from_pretrained` gives it
    structure : the backbone
    sequences : one-letter, chains separated by `/`, a letter for each residue of the structure, `X` or `-` for unknown;
        by default the native one alone
    likelihood : "order_agnostic", "one_shot" or "conditional"; by default the first, or, for models that cannot be
        shown a part of a sequence, the second
    num_draws : of masks, for the order-agnostic likelihood; the same masks for all sequences, so that their differences
        are more exact than their standard errors
    constraints : of these only `fixed`, `designed` and `excluded`: fixed residues are shown and not scored, excluded
        ones not seen at all
    seed : of the masks

    Raises
    ------
    ScoringError : a sequence does not fit the structure, or the model does not have that likelihood
    ConstraintError : constraints name what is not there
    """
    if sequences is None:
        return score_types(model, structure, structure.residue_type[None], likelihood, num_draws, constraints, seed)
    types = []
    for number, sequence in enumerate(sequences, start=1):
        try:
            types.append(place_sequence(sequence, None, structure)[0])
        except UnusableRecord as error:
            raise ScoringError(f"{structure.name}: sequence {number} {error}") from error
    if not types:
        raise ScoringError(f"{structure.name}: there is no sequence to score")
    return score_types(model, structure, np.stack(types), likelihood, num_draws, constraints, seed)


@torch.inference_mode()
def score_types(
    model: ProteinModel,
    structure: Structure,
    residue_type: np.ndarray,
    likelihood: str | None = None,
    num_draws: int = DEFAULT_DRAWS,
    constraints: Constraints | None = None,
    seed: int = 0,
) -> ScoreResult:
    """`score` for (S, L) residue types, 20 where unknown."""
    likelihood = checked_likelihood(model, likelihood, num_draws)
    plan = design_plan(structure, _only_selections(constraints))
    fixed = plan.fixed_type != DESIGNED
    scored = plan.visible & ~fixed & (residue_type != UNKNOWN_RESIDUE)
    encoded = encode_separately(model, [structure], [plan.visible])
    predictor = _Predictor(SequenceDecoder(model.decoder, encoded), encoded.residues.device, plan.visible)
    count, length = residue_type.shape
    shape = (count, length, NUM_RESIDUE_TYPES)
    result = ScoreResult(
        structure=structure,
        residue_type=residue_type.astype(np.int8),
        likelihood=likelihood,
        draws=num_draws if likelihood == "order_agnostic" else 0,
        scored=scored,
        total=np.zeros(count),
        standard_error=np.zeros(count),
        log_probability=np.full((count, length), np.nan),
        probabilities=np.full(shape, np.nan),
        log_ratios=np.full(shape, np.nan),
    )
    for index in range(count):
        _score_one(result, index, predictor, num_draws, seed)
    return result


def _score_one(result: ScoreResult, index: int, predictor: _Predictor, num_draws: int, seed: int) -> None:
    types, scored = result.residue_type[index], result.scored[index]
    rows = np.flatnonzero(scored)
    if not len(rows):
        return
    everything = scored[None]
    if result.likelihood == "one_shot":
        masks = everything
    elif result.likelihood == "conditional":
        masks = np.zeros((len(rows), len(types)), bool)
        masks[np.arange(len(rows)), rows] = True
    else:
        # The masks are drawn for what is scored, whatever its types are.
        marked = replace(result.structure, residue_type=np.where(scored, 0, UNKNOWN_RESIDUE).astype(np.int8))
        masks = order_agnostic_masks(marked, num_draws, seed)
        never = scored & ~masks.any(axis=0)
        if never.any():
            masks = np.concatenate([masks, everything])
    log_p = predictor.log_probabilities(types, masks)  # (D, L, 20), NaN where not masked
    own = np.take_along_axis(log_p, np.minimum(types, NUM_RESIDUE_TYPES - 1)[None, :, None].astype(np.int64), axis=2)
    ratios, own = log_p - own, own[..., 0]
    if result.likelihood == "order_agnostic":
        drawn = MaskedPredictions(
            scored=len(rows),
            masked=masks[:num_draws],
            nll=np.where(masks, -own, 0.0)[:num_draws],
            predicted=np.where(masks, log_p.argmax(axis=2), UNKNOWN_RESIDUE).astype(np.int8)[:num_draws],
            confidence=np.where(masks, np.exp(log_p.max(axis=2)), 0.0)[:num_draws],
        )
        nll, result.standard_error[index] = order_agnostic_nll(drawn)
        result.total[index] = -nll
        weights = masks * (len(rows) / masks.sum(axis=1))[:, None]
        if len(masks) > num_draws:
            weights[-1, ~never] = 0.0
    else:
        result.total[index] = own[masks].sum()
        weights = masks.astype(np.float64)
    weights = weights[:, rows] / weights[:, rows].sum(axis=0)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.einsum("dl,dl...->l...", weights, np.nan_to_num(values[:, rows], nan=0.0))

    result.log_probability[index, rows] = mean(own)
    result.probabilities[index, rows] = mean(np.exp(log_p))
    result.log_ratios[index, rows] = mean(ratios)


class _Predictor:
    """Log-probabilities of masked residues on one encoded backbone."""

    def __init__(self, decoder: SequenceDecoder, device: torch.device, visible: np.ndarray):
        self._decoder = decoder
        self._device = device
        self._visible = visible

    def log_probabilities(self, types: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """(D, L, 20) for (D, L) masks over a sequence (L,); NaN where not masked."""
        shown = np.where(masks | ~self._visible, UNKNOWN_RESIDUE, types)
        known = int((self._visible & (types != UNKNOWN_RESIDUE)).sum())
        level = masks.sum(axis=1, keepdims=True) / known
        found = np.full((*masks.shape, NUM_RESIDUE_TYPES), np.nan)
        for draws, rows, logits in masked_logits(self._decoder, self._device, shown, masks, level):
            found[draws, rows] = logits.double().log_softmax(-1).cpu().numpy()
        return found


def checked_likelihood(model: ProteinModel, likelihood: str | None, num_draws: int) -> str:
    """The likelihood that a model is asked for, by default the most that it knows.

    Raises
    ------
    ScoringError : it is none, the model does not have it, or there are no draws
    """
    sees_sequences = bool(model.config.use_discrete_diffusion) and model.diffusion.absorbing
    if likelihood is None:
        likelihood = "order_agnostic" if sees_sequences else "one_shot"
    if likelihood not in LIKELIHOODS:
        raise ScoringError(f"the likelihood must be one of {', '.join(LIKELIHOODS)}, but is {likelihood!r}")
    if likelihood != "one_shot" and not sees_sequences:
        raise ScoringError(
            f"the {likelihood} likelihood is for models with absorbing diffusion; use one_shot for this one"
        )
    if num_draws < 1:
        raise ScoringError(f"--num_draws must be at least 1, but is {num_draws}")
    return likelihood


def _only_selections(constraints: Constraints | None) -> Constraints:
    given = constraints or Constraints()
    kept: dict[str, Any] = {"fixed": given.fixed, "designed": given.designed, "excluded": given.excluded}
    if given != Constraints(**kept):
        raise ScoringError("of the constraints only fixed, designed and excluded have a meaning for scoring")
    return Constraints(**kept)
