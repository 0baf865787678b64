"""Made structures: helices with any chains, numbers, insertion codes and gaps, and copies of chains by rigid moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from protein_model.structures import MAX_HEAVY_ATOMS, Structure

# Cylindrical coordinates (radius in angstrom, angle in degrees, rise in angstrom) of an ideal alpha helix, residue 0.
_HELIX = {"N": (1.55, 0.0, 0.0), "CA": (2.28, 28.3, 0.87), "C": (1.67, 55.3, 2.0), "O": (2.01, 49.0, 3.2)}
_TURN, _RISE = 100.0, 1.5


def helix(length: int) -> np.ndarray:
    """(length, 4, 3) backbone, angstrom."""
    radius, angle, rise = np.array(list(_HELIX.values())).T
    angles = np.deg2rad(angle + _TURN * np.arange(length)[:, None])
    z = rise + _RISE * np.arange(length)[:, None]
    return np.stack([radius * np.cos(angles), radius * np.sin(angles), z], axis=-1)


def made_structure(
    chains: dict[str, Sequence[tuple[int, str]]], seed: int = 0, name: str = "made", wobble: float = 0.3
) -> Structure:
    """Helices side by side with random residue types and some noise.

    Parameters
    ----------
    chains : author number and insertion code (blank for none) of each residue of each chain; the position index jumps
        with the numbers
    wobble : standard deviation in angstrom of what is added to each coordinate
    """
    generator = np.random.default_rng(seed)
    members = [(index, *residue) for index, residues in enumerate(chains.values()) for residue in residues]
    count = len(members)
    chain_index, number = (np.array([member[column] for member in members], np.int32) for column in (0, 1))
    code = np.array([member[2] or " " for member in members], "<U1")
    steps = np.maximum(np.diff(number, prepend=number[:1]), 1)
    starts = np.flatnonzero(np.diff(chain_index, prepend=-1))
    position = np.cumsum(steps)
    position -= np.repeat(position[starts], np.diff([*starts.tolist(), count]))
    coordinates = np.zeros((count, MAX_HEAVY_ATOMS, 3), np.float32)
    for chain in range(len(chains)):
        rows = chain_index == chain
        place = np.array([9.0 * (chain % 4), 9.0 * (chain // 4), 0.0])
        coordinates[rows, :4] = helix(int(position[rows].max()) + 1)[position[rows]] + place
    coordinates[:, :4] += generator.normal(scale=wobble, size=(count, 4, 3)).astype(np.float32)
    mask = np.zeros((count, MAX_HEAVY_ATOMS), bool)
    mask[:, :4] = True
    return Structure(
        name=name,
        residue_type=generator.integers(0, 20, count).astype(np.int8),
        coordinates=coordinates,
        atom_mask=mask,
        b_factor=np.where(mask, 20.0, 0.0).astype(np.float32),
        occupancy=mask.astype(np.float32),
        chain_index=chain_index.astype(np.int16),
        chain_ids=tuple(chains),
        residue_number=number,
        insertion_code=code,
        position=position.astype(np.int32),
    )


def numbered(first: int, last: int) -> list[tuple[int, str]]:
    """Residues without gaps and insertion codes."""
    return [(number, " ") for number in range(first, last + 1)]


def symmetric_copies(chain: Structure, chain_ids: Sequence[str], radius: float = 20.0) -> Structure:
    """A ring of copies of one chain around the z axis: a homo-oligomer.

    Parameters
    ----------
    chain : a structure with one chain
    chain_ids : one copy each
    radius : angstrom from the axis to the middle of each copy
    """
    centred = chain.coordinates - chain.coordinates[:, 1].mean(axis=0) + np.array([radius, 0.0, 0.0])
    copies = []
    for index in range(len(chain_ids)):
        angle = 2 * np.pi * index / len(chain_ids)
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        copies.append(np.where(chain.atom_mask[..., None], centred @ turn.T, 0.0).astype(np.float32))
    count = len(chain_ids)
    repeated = chain.take(np.tile(np.arange(len(chain)), count))
    return replace(
        repeated,
        coordinates=np.concatenate(copies),
        chain_index=np.repeat(np.arange(count), len(chain)).astype(np.int16),
        chain_ids=tuple(chain_ids),
    )
