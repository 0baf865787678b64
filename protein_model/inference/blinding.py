"""The leak guard of the evaluation: what a model is given of a structure that is to be predicted.

A model cannot copy what it does not get. Whatever the code between here and the logits does, or may do one day, the
native sequence and all that follows from it are gone before: residue types are replaced by random ones, side chains,
B-factors and occupancies by nothing. If anything reads the residue types all the same, figures fall to chance instead
of rising.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..randomness import numpy_generator
from ..structures import BACKBONE_ATOM_COUNT, Structure
from .metrics import NUM_TYPES


def blinded(structure: Structure) -> Structure:
    """The backbone of a structure under a scrambled sequence.

    The scrambled types are even draws from the twenty; they depend on the name and the length of the structure alone.
    """
    count = len(structure)
    scrambled = numpy_generator(0, "scrambled sequence", structure.name, count).integers(NUM_TYPES, size=count)
    mask = structure.atom_mask.copy()
    mask[:, BACKBONE_ATOM_COUNT:] = False
    return replace(
        structure,
        residue_type=scrambled.astype(structure.residue_type.dtype),
        coordinates=np.where(mask[..., None], structure.coordinates, np.float32(0)),
        atom_mask=mask,
        b_factor=np.zeros_like(structure.b_factor),
        occupancy=mask.astype(structure.occupancy.dtype),
    )
