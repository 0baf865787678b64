"""SEQRES of a PDB file: the place of each residue in the full sequence of its chain, by gemmi's alignment."""

from __future__ import annotations

import gemmi
import numpy as np

from .positions import NO_LABEL

MIN_AGREEMENT = 0.9  # share of residues whose names agree; below it the SEQRES records are those of something else


def seqres_labels(parsed: gemmi.Structure, source: np.ndarray, chain: np.ndarray) -> np.ndarray:
    """Places in the full sequence.

    Parameters
    ----------
    parsed : structure of a PDB file; labels and entities are set in it
    source : (N,) index of each residue among all residues of the model
    chain : (N,) index of its chain

    Returns
    -------
    (N,) int, -1 for chains without SEQRES records or with such that do not fit the residues
    """
    labels = np.full(len(source), NO_LABEL)
    if not any(entity.full_sequence for entity in parsed.entities):
        return labels
    parsed.setup_entities()
    parsed.assign_label_seq_id()
    found: list[int] = []
    agrees: list[bool] = []
    for part in parsed[0]:
        sequence = _full_sequence(parsed, part)
        for residue in part:
            place = residue.label_seq
            if place is None or not 1 <= place <= len(sequence):
                found.append(NO_LABEL)
                agrees.append(False)
            else:
                found.append(place)
                agrees.append(residue.name in sequence[place - 1].split(","))
    place, agreement = np.array(found)[source], np.array(agrees)[source]
    for index in np.unique(chain):
        rows = chain == index
        if (place[rows] > 0).all() and (np.diff(place[rows]) > 0).all() and agreement[rows].mean() >= MIN_AGREEMENT:
            labels[rows] = place[rows]
    return labels


def _full_sequence(parsed: gemmi.Structure, chain: gemmi.Chain) -> list[str]:
    entity = parsed.get_entity_of(chain.get_polymer())
    return list(entity.full_sequence) if entity is not None else []
