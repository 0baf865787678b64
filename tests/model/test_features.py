"""Geometry: invariances, ideal values, and the neighbour graph against a slow reference."""

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from protein_model.model import features


def random_backbone(length: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(length * 4, 3, generator=generator)
    return (1.45 * steps / steps.norm(dim=-1, keepdim=True)).cumsum(0).reshape(length, 4, 3)


def random_motion(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    if torch.det(rotation) < 0:
        rotation[:, 0] *= -1
    return rotation, 30 * torch.randn(3, generator=generator, dtype=torch.float64)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_features_do_not_change_under_rotation_and_translation(seed):
    # In float64, so that what is seen is the formulas and not the rounding of the coordinates.
    backbone = random_backbone(25, seed).double()
    rotation, shift = random_motion(seed)
    moved = backbone @ rotation.T + shift
    neighbours, _ = features.neighbour_graph(
        backbone[:, 1], torch.ones(25, dtype=torch.bool), torch.zeros(25, dtype=torch.int64), 8
    )
    bonded = torch.ones(24, dtype=torch.bool)
    for function in (
        lambda x: features.edge_distances(x, neighbours),
        lambda x: features.edge_frames(x, neighbours),
        lambda x: features.backbone_angles(x, bonded),
    ):
        torch.testing.assert_close(function(moved), function(backbone), atol=1e-6, rtol=1e-6)


def test_mirror_image_is_told_apart():
    backbone = random_backbone(25, 0)
    neighbours = torch.arange(25)[:, None].roll(1, 0)
    mirrored = backbone * torch.tensor([1.0, 1.0, -1.0])
    change = features.edge_frames(mirrored, neighbours) - features.edge_frames(backbone, neighbours)
    assert change.abs().max() > 0.1


def test_frames_are_right_handed_and_orthonormal():
    frames = features.local_frames(random_backbone(40, 1))
    torch.testing.assert_close(frames.transpose(1, 2) @ frames, torch.eye(3).expand(40, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.det(frames), torch.ones(40), atol=1e-5, rtol=0)


def test_dihedral_signs():
    a, b, c = torch.tensor([[1.0, 0, 0]]), torch.tensor([[0.0, 0, 0]]), torch.tensor([[0.0, 0, 1]])
    for degrees in (-170, -60, 0.5, 60, 179):
        angle = math.radians(degrees)
        # Looking from b to c, a positive torsion turns clockwise: from x toward y.
        d = torch.tensor([[math.cos(angle), math.sin(angle), 1.0]])
        assert math.isclose(float(features.dihedral(a, b, c, d)), angle, abs_tol=1e-5)


def test_virtual_cb_has_the_bond_length_of_a_real_one():
    n, ca, c = [-0.525, 1.363, 0.0], [0.0, 0.0, 0.0], [1.526, 0.0, 0.0]  # ideal alanine, angstrom
    backbone = torch.tensor([[n, ca, c, [2.15, -1.06, 0.0]]])
    cb = features.virtual_cb(backbone)[0]
    torch.testing.assert_close(cb, torch.tensor([-0.529, -0.774, -1.205]), atol=0.05, rtol=0)


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    num_neighbors=st.integers(1, 12),
    seed=st.integers(0, 1000),
)
def test_neighbour_graph_is_that_of_a_slow_reference(lengths, num_neighbors, seed):
    random = np.random.default_rng(seed)
    total = sum(lengths)
    ca = random.normal(size=(total, 3)).astype(np.float32) * 10
    usable = random.random(total) < 0.8
    structure = np.repeat(np.arange(len(lengths)), lengths)
    neighbours, present = features.neighbour_graph(
        torch.from_numpy(ca), torch.from_numpy(usable), torch.from_numpy(structure), num_neighbors
    )
    assert neighbours.shape == present.shape == (total, num_neighbors)
    for i in range(total):
        if not usable[i]:
            assert not present[i].any()
            continue
        candidates = [j for j in range(total) if structure[j] == structure[i] and usable[j]]
        candidates.sort(key=lambda j: -1.0 if j == i else float(np.linalg.norm(ca[i] - ca[j])))
        assert neighbours[i][present[i]].tolist() == candidates[:num_neighbors]
        assert neighbours[i, 0] == i


def test_no_bond_across_gaps_chains_structures_and_incomplete_residues():
    position = torch.tensor([0, 1, 3, 4, 5, 6, 7, 8])
    chain = torch.tensor([0, 0, 0, 0, 1, 1, 0, 0])
    structure = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1])
    usable = torch.tensor([1, 1, 1, 1, 1, 1, 1, 0], dtype=torch.bool)
    bonded = features.bonded_to_next(usable, structure, chain, position)
    assert bonded.tolist() == [True, False, True, False, True, False, False]


def test_angles_are_zero_where_a_bond_is_missing():
    backbone = random_backbone(6, 2)
    bonded = torch.tensor([True, True, False, True, True])
    angles = features.backbone_angles(backbone, bonded)
    assert angles[0, 0:2].eq(0).all() and angles[3, 0:2].eq(0).all()  # phi
    assert angles[2, 2:6].eq(0).all() and angles[5, 2:6].eq(0).all()  # psi, omega
    assert angles[1].ne(0).all()


def test_relative_positions_are_clipped_and_know_other_chains():
    position = torch.tensor([0, 1, 50, 3])
    chain = torch.tensor([0, 0, 0, 1])
    neighbours = torch.arange(4).expand(4, 4)
    classes = features.relative_positions(position, chain, neighbours, 32)
    assert classes[0].tolist() == [32, 33, 64, 65]
    assert classes[3].tolist() == [65, 65, 65, 32]
