"""Geometry of a protein backbone as numbers that do not change when the protein is rotated or moved.

Pure functions of coordinates in angstrom, always in float32: 16-bit coordinates would be wrong by tenths of an
angstrom. Learned layers are left to `encoder`.

Arrays are flat: `N` residues of one or several structures end to end, with `structure_index (N,)` non-decreasing.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

SHORTEST_DISTANCE = 2.0  # angstrom, first radial basis; as ProteinMPNN (Dauparas et al. 2022)
LONGEST_DISTANCE = 22.0  # angstrom, last radial basis; as ProteinMPNN
NEGLIGIBLE_EXPONENT = 30.0  # exp(-30) is 1e-13, far below the rounding of the sums that it goes into
NUM_ATOMS = 5  # N, CA, C, O and the virtual CB: 25 distances between two residues
FRAME_FEATURES = 12  # direction to the neighbour (3) and relative rotation (9)
ANGLE_FEATURES = 12  # sine and cosine of phi, psi, omega and of three bond angles


def virtual_cb(backbone: Tensor) -> Tensor:
    """CB where an ideal residue has it.

    Parameters
    ----------
    backbone : (N, 4, 3) angstrom, N CA C O

    Returns
    -------
    (N, 3) angstrom. Coefficients: Dauparas et al. 2022 (ProteinMPNN), from ideal tetrahedral geometry.
    """
    n, ca, c = backbone[:, 0], backbone[:, 1], backbone[:, 2]
    b, a = ca - n, c - ca
    normal = torch.linalg.cross(b, a)
    return -0.58273431 * normal + 0.56802827 * b - 0.54067466 * a + ca


def local_frames(backbone: Tensor) -> Tensor:
    """Right-handed orthonormal frame of every residue, from N, CA and C by Gram-Schmidt (Jumper et al. 2021, alg. 21).

    Returns
    -------
    (N, 3, 3), columns are the axes: x toward C, y in the N-CA-C plane on the side of N, z across
    """
    n, ca, c = backbone[:, 0], backbone[:, 1], backbone[:, 2]
    x = functional.normalize(c - ca, dim=-1)
    to_n = n - ca
    y = functional.normalize(to_n - (to_n * x).sum(-1, keepdim=True) * x, dim=-1)
    return torch.stack([x, y, torch.linalg.cross(x, y)], dim=-1)


def neighbour_graph(ca: Tensor, usable: Tensor, structure_index: Tensor, num_neighbors: int) -> tuple[Tensor, Tensor]:
    """The nearest usable residues of the same structure, by CA distance, the residue itself first.

    Parameters
    ----------
    ca : (N, 3) angstrom
    usable : (N,) bool, residues that may be in the graph at all
    structure_index : (N,) int64, non-decreasing
    num_neighbors : K

    Returns
    -------
    neighbours : (N, K) int64, row of each neighbour; the residue itself where there is none
    present : (N, K) bool, False where there is no such neighbour
    """
    total = len(ca)
    # Structures are laid out side by side, padded to the longest, so that only distances within one are computed.
    counts = torch.bincount(structure_index)
    starts = torch.cumsum(counts, 0) - counts
    width = int(counts.max())
    column = torch.arange(total, device=ca.device) - starts[structure_index]
    padded = ca.new_zeros(len(counts), width, 3)
    padded[structure_index, column] = ca
    filled = torch.zeros(len(counts), width, dtype=torch.bool, device=ca.device)
    filled[structure_index, column] = usable
    distance = torch.cdist(padded, padded, compute_mode="donot_use_mm_for_euclid_dist")
    distance = distance.masked_fill(~filled[:, None, :], torch.inf)
    distance.diagonal(dim1=1, dim2=2).fill_(-1.0)
    taken = min(num_neighbors, width)
    nearest, columns = distance.topk(taken, largest=False)
    present = torch.isfinite(nearest) & filled[:, :, None]
    neighbours = columns + starts[:, None, None]
    neighbours, present = neighbours[structure_index, column], present[structure_index, column]
    own = torch.arange(total, device=ca.device)[:, None]
    neighbours = torch.where(present, neighbours, own)
    if taken < num_neighbors:
        missing = num_neighbors - taken
        neighbours = torch.cat([neighbours, own.expand(total, missing)], dim=1)
        present = torch.cat([present, present.new_zeros(total, missing)], dim=1)
    return neighbours, present


def radial_bases(distance: Tensor, num_bases: int) -> Tensor:
    """Gaussians spread evenly over the distances that matter.

    Parameters
    ----------
    distance : (...) angstrom

    Returns
    -------
    (..., num_bases) between 0 and 1
    """
    centres = torch.linspace(SHORTEST_DISTANCE, LONGEST_DISTANCE, num_bases, device=distance.device)
    width = (LONGEST_DISTANCE - SHORTEST_DISTANCE) / num_bases
    # Far from a centre the exponential is a denormal number, on which processors multiply 10 to 100 times slower.
    # In place: this is the largest array of the model.
    exponent = ((distance / width)[..., None] - centres / width).square_().clamp_(max=NEGLIGIBLE_EXPONENT)
    return exponent.neg_().exp_()


def edge_distances(backbone: Tensor, neighbours: Tensor) -> Tensor:
    """All distances between the five atoms of a residue and those of its neighbours.

    Parameters
    ----------
    backbone : (N, 4, 3) angstrom
    neighbours : (N, K)

    Returns
    -------
    (N, K, 25) angstrom
    """
    atoms = torch.cat([backbone, virtual_cb(backbone)[:, None]], dim=1)
    difference = atoms[:, None, :, None] - atoms[neighbours][:, :, None]
    # The small constant keeps the root's derivative finite for a residue's distance to itself.
    return (difference.square().sum(-1) + 1e-6).sqrt().flatten(2)


def edge_frames(backbone: Tensor, neighbours: Tensor) -> Tensor:
    """Where a neighbour is and how it is turned, seen from the residue's own frame.

    Returns
    -------
    (N, K, 12): unit vector to the neighbour's CA (3), rotation of its frame (9)
    """
    frames, ca = local_frames(backbone), backbone[:, 1]
    direction = functional.normalize(ca[neighbours] - ca[:, None], dim=-1)
    direction = torch.einsum("nij,nki->nkj", frames, direction)
    rotation = torch.einsum("nij,nkil->nkjl", frames, frames[neighbours])
    return torch.cat([direction, rotation.flatten(2)], dim=-1)


def dihedral(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Torsion about b-c in radians, (N,), IUPAC sign; formula of Blondel and Karplus (1996)."""
    b1, b2, b3 = b - a, c - b, d - c
    n1, n2 = torch.linalg.cross(b1, b2), torch.linalg.cross(b2, b3)
    sine = (b1 * n2).sum(-1) * b2.norm(dim=-1)
    return torch.atan2(sine, (n1 * n2).sum(-1))


def bonded_to_next(usable: Tensor, structure_index: Tensor, chain_index: Tensor, position: Tensor) -> Tensor:
    """(N - 1,) bool: row i and row i + 1 share a peptide bond, which neither a gap nor a chain end does."""
    return (
        usable[1:]
        & usable[:-1]
        & (structure_index[1:] == structure_index[:-1])
        & (chain_index[1:] == chain_index[:-1])
        & (position[1:] == position[:-1] + 1)
    )


def backbone_angles(backbone: Tensor, bonded: Tensor) -> Tensor:
    """Sine and cosine of phi, psi, omega and of the bond angles at N, CA and C; zero where a bond is missing.

    Parameters
    ----------
    backbone : (N, 4, 3) angstrom
    bonded : (N - 1,) bool, from `bonded_to_next`

    Returns
    -------
    (N, 12)
    """
    n, ca, c = backbone[:, 0], backbone[:, 1], backbone[:, 2]
    from_previous = functional.pad(bonded, (1, 0))[:, None]
    to_next = functional.pad(bonded, (0, 1))[:, None]
    zero = (0, 0, 1, 0), (0, 0, 0, 1)

    def pair(angle: Tensor) -> Tensor:
        return torch.stack([angle.sin(), angle.cos()], dim=-1)

    def bond_angle(a: Tensor, b: Tensor, d: Tensor) -> Tensor:
        cosine = functional.cosine_similarity(a - b, d - b, dim=-1)
        return torch.stack([(1 - cosine.square()).clamp(min=0).sqrt(), cosine], dim=-1)

    phi = functional.pad(pair(dihedral(c[:-1], n[1:], ca[1:], c[1:])), zero[0]) * from_previous
    psi = functional.pad(pair(dihedral(n[:-1], ca[:-1], c[:-1], n[1:])), zero[1]) * to_next
    omega = functional.pad(pair(dihedral(ca[:-1], c[:-1], n[1:], ca[1:])), zero[1]) * to_next
    at_n = functional.pad(bond_angle(c[:-1], n[1:], ca[1:]), zero[0]) * from_previous
    at_ca = bond_angle(n, ca, c)
    at_c = functional.pad(bond_angle(ca[:-1], c[:-1], n[1:]), zero[1]) * to_next
    return torch.cat([phi, psi, omega, at_n, at_ca, at_c], dim=-1)


def relative_positions(position: Tensor, chain_index: Tensor, neighbours: Tensor, largest: int) -> Tensor:
    """Class of the sequence offset to each neighbour.

    Returns
    -------
    (N, K) int64: 0 to 2 * largest within a chain, clipped; 2 * largest + 1 for another chain
    """
    offset = (position[neighbours] - position[:, None]).clamp(-largest, largest) + largest
    same_chain = chain_index[neighbours] == chain_index[:, None]
    return torch.where(same_chain, offset, 2 * largest + 1)
