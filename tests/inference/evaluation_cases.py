"""Tiny models with random weights, and small structures, for the tests of evaluation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from protein_model.inference.evaluation import EvaluationSettings, evaluate_structures
from protein_model.inference.sampling import Designs
from protein_model.inference.step_sweep import StepFigures, step_figures, sweep_ways
from protein_model.model.configuration import ProteinModelConfig
from protein_model.model.modeling import ProteinModel
from protein_model.structures import Structure, read_structure
from protein_model.training.substitution import blosum62_transition_matrix

EXAMPLES = Path(__file__).parents[2] / "protein_model" / "examples"


def tiny_model(**options) -> ProteinModel:
    """A model whose predictions depend on backbone and tokens, as random as they are."""
    options = {"use_discrete_diffusion": True, "num_diffusion_steps": 10, **options}
    if options.get("diffusion_kernel") == "substitution":
        options["substitution_matrix"] = blosum62_transition_matrix()
    config = ProteinModelConfig(
        hidden_dim=16, num_encoder_layers=1, num_decoder_layers=2, num_neighbors=8, dropout=0.0, **options
    )
    model = ProteinModel(config)
    torch.manual_seed(1)  # here, so that the weights do not depend on how a new model is initialised
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=0.4)
    return model.eval()


def example(name: str) -> Structure:
    """One of the embedded structures."""
    return read_structure(EXAMPLES / name)


def small_structures() -> list[Structure]:
    """Four structures of 56 to 108 residues; one with an unknown residue and one with an incomplete backbone."""
    structures = [example(name) for name in ("1orc.pdb.gz", "pdb1ubi.pdb.gz", "5PTI.cif.gz", "3pivA.pdb.gz")]
    types = structures[0].residue_type.copy()
    types[5] = 20
    mask = structures[0].atom_mask.copy()
    mask[9, 2] = False
    coordinates = np.where(mask[..., None], structures[0].coordinates, np.float32(0))
    structures[0] = replace(structures[0], residue_type=types, atom_mask=mask, coordinates=coordinates)
    return structures


def stretch(structure: Structure, start: int, count: int) -> Structure:
    """A few residues of a structure."""
    return replace(structure.take(np.arange(start, start + count)), name=f"{structure.name}-{start}-{count}")


def with_sequence(structure: Structure, seed: int) -> Structure:
    """The same backbone under a random other sequence, with other side chains and B-factors, X where X is."""
    generator = np.random.default_rng(seed)
    types = generator.integers(20, size=len(structure)).astype(np.int8)
    types[structure.residue_type == 20] = 20
    coordinates = structure.coordinates.copy()
    coordinates[:, 4:] = generator.normal(size=coordinates[:, 4:].shape)
    mask = structure.atom_mask.copy()
    mask[:, 4:] = generator.random(mask[:, 4:].shape) < 0.5
    return replace(
        structure,
        residue_type=types,
        coordinates=coordinates,
        atom_mask=mask,
        b_factor=generator.random(mask.shape).astype(np.float32),
        occupancy=generator.random(mask.shape).astype(np.float32),
    )


def designs_of(residue_type: np.ndarray) -> Designs:
    """What a sampler gives, with certain (samples, L) sequences in it."""
    zeros = np.zeros(residue_type.shape, np.float32)
    return Designs(residue_type, zeros.mean(axis=1), zeros, np.ones(residue_type.shape[1], bool))


def sweep_steps(model, structures, settings: EvaluationSettings, step_counts, orders=(None,)) -> list[StepFigures]:
    """Figures of every order at every number of steps."""
    ways = sweep_ways(model, settings, step_counts, orders)
    return step_figures(evaluate_structures(model, structures, settings, ways), ways, settings)
