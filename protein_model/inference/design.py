"""Design for one structure, as a function with a typed result; folders are left to `folders`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from transformers.utils.logging import disable_progress_bar

from ..errors import UserError
from ..loading import NoModel, pretrained
from ..model.modeling import ProteinModel
from ..structures import BACKBONE_ATOM_COUNT, UNKNOWN_RESIDUE, Structure, write_fasta
from ..which_model import DEFAULT_MODEL, find_model
from .constraints import DESIGNED, ConstraintError, Constraints, DesignPlan, design_plan
from .metrics import recovery
from .records import DesignRecord, chain_sequences, native_record
from .sampling import (
    DEFAULT_STEPS,
    DEFAULT_TEMPERATURE,
    Designs,
    Sampler,
    SamplingSettings,
    Steps,
    sample_sequences,
    settings_for,
)


class DamagedModel(UserError, ValueError):
    """What is in a model folder is no model of this package, or not all of it."""


def load_model(model: str | Path = DEFAULT_MODEL, device: torch.device | None = None) -> ProteinModel:
    """A trained model, ready to design.

    Parameters
    ----------
    model : name of a model that the package ships, or path of a folder that training saved; see
        `which_model.find_model`
    device : by default a GPU where there is one

    Raises
    ------
    ModelNotFound : there is no such model; the message says what is expected
    DamagedModel : its files are cut off, missing, or do not belong together
    """
    folder = find_model(model)
    disable_progress_bar()
    try:
        loaded = pretrained(folder)
    except NoModel as error:
        raise DamagedModel(
            f"{folder}: config.json and model.safetensors there are no model that can be loaded "
            f"({error}); copy the folder again, or export it again from its run"
        ) from error
    if device is None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loaded.to(device)  # type: ignore[arg-type]  # its wrapper hides the signature
    return loaded.eval()


@dataclass(frozen=True, eq=False)
class DesignResult:
    """Designs for one structure of `L` residues.

    Attributes
    ----------
    structure : as it was given
    plan : what was designed, fixed and tied
    settings : of sampling, as they are for the model
    designs : residue types, scores and log-probabilities of all samples
    """

    structure: Structure
    plan: DesignPlan
    settings: SamplingSettings
    designs: Designs

    def __len__(self) -> int:
        return len(self.designs.residue_type)

    @property
    def sequences(self) -> list[str]:
        """One-letter sequences, chains separated by slashes."""
        return [chain_sequences(residue_type, self.structure) for residue_type in self.designs.residue_type]

    @property
    def scores(self) -> np.ndarray:
        """(samples,) nats per designed residue, lower is better."""
        return self.designs.score

    @property
    def recovery(self) -> np.ndarray:
        """(samples,) share of the designed residues with a known native type that have it; NaN where there are none."""
        designed = self.structure.take(self.plan.designed)
        return recovery(self.designs.residue_type[:, self.plan.designed], designed)

    @property
    def confidence(self) -> np.ndarray:
        """(samples, L) probability of each chosen type, 1 for fixed residues, 0 for those without a type."""
        chosen = np.exp(np.nan_to_num(self.designs.log_probability, nan=-np.inf))
        # Residues that follow one that they are tied to are as sure as that one.
        for row in np.flatnonzero(self.plan.designed & ~self.plan.visible).tolist():
            leaders = np.flatnonzero((self.plan.unit == self.plan.unit[row]) & self.plan.visible)
            chosen[:, row] = chosen[:, leaders].mean(axis=1)
        kept = (self.plan.fixed_type != DESIGNED) & (self.plan.fixed_type != UNKNOWN_RESIDUE)
        return np.where(kept, 1.0, chosen)

    def designed_structure(self, sample: int = 0) -> Structure:
        """The given backbone with a designed sequence: N, CA, C and O, confidence in percent as B-factor.

        Residues of which the file has none of these atoms are left out.
        """
        mask = self.structure.atom_mask.copy()
        mask[:, BACKBONE_ATOM_COUNT:] = False
        confidence = (100.0 * self.confidence[sample]).astype(np.float32)
        designed = replace(
            self.structure,
            residue_type=self.designs.residue_type[sample],
            coordinates=np.where(mask[..., None], self.structure.coordinates, np.float32(0)),
            atom_mask=mask,
            b_factor=np.where(mask, confidence[:, None], np.float32(0)),
            occupancy=mask.astype(np.float32),
        )
        return designed.take(np.flatnonzero(mask.any(axis=1)))

    def records(self, model_name: str = "") -> list[DesignRecord]:
        """The designs with all that their FASTA headers say."""
        temperature = self.settings.temperature
        return [
            DesignRecord(
                name=self.structure.name,
                sample=sample,
                score=float(score),
                recovery=float(share),
                designed=int(self.plan.designed.sum()),
                temperature=temperature,
                steps=str(self.settings.num_steps),
                order=self.settings.order or "",
                remask=self.settings.remask,
                seed=self.settings.seed,
                model=model_name,
                chains=self.structure.chain_ids,
                sequence=sequence,
            )
            for sample, (score, share, sequence) in enumerate(
                zip(self.scores, self.recovery, self.sequences, strict=True), start=1
            )
        ]

    def write_fasta(self, path: str | Path, model_name: str = "") -> None:
        """The native sequence and the designs, as `records` describes the format."""
        designs = [(record.header, record.sequence) for record in self.records(model_name)]
        write_fasta(path, [native_record(self.structure), *designs])


def design(
    model: ProteinModel,
    structure: Structure,
    num_sequences: int = 1,
    *,
    constraints: Constraints | None = None,
    temperature: float = DEFAULT_TEMPERATURE,
    num_steps: Steps = DEFAULT_STEPS,
    order: str | None = None,
    remask: float = 0.0,
    seed: int = 0,
) -> DesignResult:
    """Design sequences for a structure.

    Parameters
    ----------
    model : in evaluation mode, as `from_pretrained` gives it
    structure : only its backbone is looked at, and the types of the residues that `constraints` fix
    num_sequences : samples
    constraints : what the designs must keep to; by default nothing
    temperature, num_steps, order, remask, seed : see `sampling.SamplingSettings`

    Raises
    ------
    ConstraintError : constraints name what is not there or contradict each other, or leave nothing to design
    SamplingError : a setting is out of its range
    """
    if constraints is not None and constraints.temperature is not None:
        temperature = constraints.temperature
    settings = settings_for(model, SamplingSettings(temperature, num_steps, order, remask, seed))
    plan = design_plan(structure, constraints)
    refuse_nothing_to_design(structure, plan)
    [designs] = Sampler(model, [structure], [plan]).sample(num_sequences, settings)
    return DesignResult(structure, plan, settings, designs)


def refuse_nothing_to_design(structure: Structure, plan: DesignPlan) -> None:
    """Raise `ConstraintError` where no residue is to be designed."""
    if plan.designed.any():
        return
    reason = "all residues are fixed or excluded"
    if not structure.backbone_complete.any():
        reason = "no residue has N, CA, C and O"
    raise ConstraintError(f"{structure.name}: there is nothing to design: {reason}")


def example_designs(model: ProteinModel, structures: Sequence[Structure]) -> str:
    """One designed sequence under the native one for each structure, with its recovery, as text."""
    lines = []
    for structure, designs in zip(structures, sample_sequences(model, structures, 1), strict=True):
        share = recovery(designs.residue_type, structure)[0]
        lines += [
            f"{structure.name}: recovery {100 * share:.1f} % at temperature {DEFAULT_TEMPERATURE:g}",
            f"  native   {chain_sequences(structure.residue_type, structure)}",
            f"  designed {chain_sequences(designs.residue_type[0], structure)}",
        ]
    return "\n".join(lines)
