"""Structures -> what the model sees of them: backbones, and nothing of the native sequence or the side chains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..model.encoder import EncodedBackbone
from ..model.modeling import ProteinModel
from ..structures import Structure


@dataclass(frozen=True)
class BackboneBatch:
    """Backbones of `B` structures end to end, `N` residues; no residue types, so that none can leak into a design.

    Attributes
    ----------
    backbone : (N, 4, 3) float32, angstrom
    backbone_mask : (N,) bool
    structure_index, chain_index, position : (N,) int64
    lengths : residues of each structure
    """

    backbone: Tensor
    backbone_mask: Tensor
    structure_index: Tensor
    chain_index: Tensor
    position: Tensor
    lengths: tuple[int, ...]

    def encode(self, model: ProteinModel) -> EncodedBackbone:
        """Run the encoder of `model`."""
        return model.encode(self.backbone, self.backbone_mask, self.structure_index, self.chain_index, self.position)


def backbone_batch(
    structures: Sequence[Structure], device: torch.device, visible: Sequence[np.ndarray] | None = None
) -> BackboneBatch:
    """Join the backbones of some structures.

    Parameters
    ----------
    visible : (L,) bool for each structure, residues that the model is to see; by default those with a complete backbone

    Raises
    ------
    ValueError : there is no structure
    """
    if not structures:
        raise ValueError("there is no structure to read a backbone from")
    lengths = tuple(len(structure) for structure in structures)
    if visible is None:
        visible = [structure.backbone_complete for structure in structures]

    def joined(arrays: Sequence[np.ndarray], dtype: type) -> Tensor:
        return torch.from_numpy(np.concatenate(arrays).astype(dtype)).to(device)

    return BackboneBatch(
        backbone=joined([structure.coordinates[:, :4] for structure in structures], np.float32),
        backbone_mask=joined(visible, np.bool_),
        structure_index=torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).to(device),
        chain_index=joined([structure.chain_index for structure in structures], np.int64),
        position=joined([structure.position for structure in structures], np.int64),
        lengths=lengths,
    )


def encode_separately(
    model: ProteinModel, structures: Sequence[Structure], visible: Sequence[np.ndarray]
) -> EncodedBackbone:
    """Encode each structure by itself and join the results, so that what a structure gets is the same in any company.

    Parameters
    ----------
    visible : (L,) bool for each structure, residues that the model is to see
    """
    device = next(model.parameters()).device
    parts = [
        backbone_batch([structure], device, [seen]).encode(model)
        for structure, seen in zip(structures, visible, strict=True)
    ]
    starts = np.cumsum([0, *[len(structure) for structure in structures]]).tolist()
    return EncodedBackbone(
        residues=torch.cat([part.residues for part in parts]),
        edges=torch.cat([part.edges for part in parts]),
        neighbours=torch.cat([part.neighbours + start for part, start in zip(parts, starts, strict=False)]),
        present=torch.cat([part.present for part in parts]),
        structure_index=torch.cat([part.structure_index + index for index, part in enumerate(parts)]),
    )


def grouped_by_length(structures: Sequence[Structure], max_residues: int) -> list[list[int]]:
    """Indices of structures, longest first, in groups of at most `max_residues` residues (or of one structure)."""
    order = sorted(range(len(structures)), key=lambda index: -len(structures[index]))
    groups: list[list[int]] = []
    room = 0
    for index in order:
        if not groups or len(structures[index]) > room:
            groups.append([])
            room = max_residues
        groups[-1].append(index)
        room -= len(structures[index])
    return groups
