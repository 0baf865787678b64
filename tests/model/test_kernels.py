"""Transition matrices: stochastic, a semigroup, exact at both ends, equal to independent ways of computing them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from protein_model.model.diffusion import DiscreteDiffusion
from protein_model.model.kernels import AbsorbingKernel, SubstitutionKernel, UniformKernel, build_kernel
from protein_model.training.substitution import blosum62_transition_matrix

KERNELS = {
    "absorbing": build_kernel("absorbing", None),
    "uniform": build_kernel("uniform", None),
    "substitution": build_kernel("substitution", blosum62_transition_matrix()),
}
kernels = st.sampled_from(sorted(KERNELS)).map(KERNELS.__getitem__)
retentions = st.one_of(st.just(0.0), st.just(1.0), st.floats(0, 1), st.floats(1e-12, 1e-3), st.floats(0.9999, 1))


def transition(kernel, alpha):
    return kernel.transition(torch.tensor(alpha, dtype=torch.float64))


@settings(deadline=None)
@given(kernel=kernels, alpha=retentions)
def test_rows_are_probabilities(kernel, alpha):
    matrix = transition(kernel, alpha)
    assert matrix.shape == (kernel.num_states, kernel.num_states)
    assert matrix.dtype == torch.float64
    assert (matrix >= 0).all()
    torch.testing.assert_close(matrix.sum(1), torch.ones(kernel.num_states, dtype=torch.float64), atol=1e-14, rtol=0)


@settings(deadline=None)
@given(kernel=kernels, first=retentions, second=retentions)
def test_two_transitions_make_one(kernel, first, second):
    product = transition(kernel, first) @ transition(kernel, second)
    torch.testing.assert_close(product, transition(kernel, first * second), atol=1e-13, rtol=0)


@pytest.mark.parametrize("num_steps", [1, 2, 7, 200])
@pytest.mark.parametrize("name", KERNELS)
def test_closed_form_equals_the_product_of_single_steps(name, num_steps):
    kernel = KERNELS[name]
    alpha_bar = DiscreteDiffusion(kernel, num_steps).alpha_bar(torch.arange(num_steps + 1))
    product = torch.eye(kernel.num_states, dtype=torch.float64)
    for t in range(1, num_steps + 1):
        product = product @ kernel.transition(alpha_bar[t] / alpha_bar[t - 1])
        torch.testing.assert_close(product, kernel.transition(alpha_bar[t]), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", KERNELS)
def test_without_noise_nothing_changes(name):
    kernel = KERNELS[name]
    assert torch.equal(transition(kernel, 1.0), torch.eye(kernel.num_states, dtype=torch.float64))


@pytest.mark.parametrize("name", KERNELS)
def test_at_full_noise_all_rows_are_the_stationary_distribution(name):
    kernel = KERNELS[name]
    end = transition(kernel, 0.0)
    assert (end == end[0]).all()
    torch.testing.assert_close(end[0] @ transition(kernel, 0.37), end[0], atol=1e-14, rtol=0)
    torch.testing.assert_close(transition(kernel, 1e-30), end, atol=1e-12, rtol=0)


def test_absorbing_and_uniform_entries():
    absorbing, uniform = transition(AbsorbingKernel(3), 0.25), transition(UniformKernel(4), 0.2)
    expected = [[0.25, 0, 0, 0.75], [0, 0.25, 0, 0.75], [0, 0, 0.25, 0.75], [0, 0, 0, 1]]
    torch.testing.assert_close(absorbing, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(uniform, 0.2 * torch.eye(4).double() + 0.2)


def exponential(matrix):
    """Its series; `torch.linalg.matrix_exp` errs by 1e-9 of small matrices."""
    halvings = 6
    total = term = torch.eye(len(matrix), dtype=torch.float64)
    for power in range(1, 30):
        term = term @ matrix / 2**halvings / power
        total = total + term
    return torch.linalg.matrix_power(total, 2**halvings)


@settings(deadline=None)
@given(alpha=st.floats(1e-6, 1), seed=st.integers(0, 2**31), size=st.integers(2, 8))
def test_substitution_is_the_exponential_of_its_generator(alpha, seed, size):
    joint = np.random.default_rng(seed).uniform(0.01, 1, (size, size))
    joint += joint.T
    conditional = torch.from_numpy(joint / joint.sum(1, keepdims=True))
    generator = conditional - torch.eye(size, dtype=torch.float64)
    expected = exponential(-np.log(alpha) * generator)
    kernel = SubstitutionKernel(conditional.tolist())
    torch.testing.assert_close(transition(kernel, alpha), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(transition(kernel, 0.0)[0], torch.from_numpy(joint.sum(1) / joint.sum()))


def test_rare_substitutions_keep_their_relative_precision():
    conditional = torch.tensor(blosum62_transition_matrix(), dtype=torch.float64)
    off_diagonal = ~torch.eye(20, dtype=torch.bool)
    alpha = 1 - 1e-9
    rate = transition(KERNELS["substitution"], alpha)[off_diagonal] / -np.log(alpha)
    torch.testing.assert_close(rate, conditional[off_diagonal], rtol=1e-7, atol=0)


def test_a_periodic_matrix_is_a_fair_chain_in_continuous_time():
    matrix = transition(SubstitutionKernel([[0, 1], [1, 0]]), 0.5)
    torch.testing.assert_close(matrix, torch.tensor([[0.625, 0.375], [0.375, 0.625]], dtype=torch.float64))


def test_many_retentions_at_once_and_in_single_precision():
    alpha = torch.tensor([[0.0, 0.25], [0.5, 1.0]], dtype=torch.float32)
    for kernel in KERNELS.values():
        matrices = kernel.transition(alpha)
        assert matrices.dtype == torch.float64
        assert matrices.shape == (2, 2, kernel.num_states, kernel.num_states)
        for row in range(2):
            for column in range(2):
                one = kernel.transition(alpha[row, column])
                torch.testing.assert_close(matrices[row, column], one, atol=1e-15, rtol=0)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[0.5, 0.5]], "square"),
        ([[0.5, 0.5], [0.5, 0.4]], "sum to one"),
        ([[1.2, -0.2], [-0.2, 1.2]], "negative"),
        ([[0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.8, 0.1, 0.1]], "reversible"),
        ([[1.0, 0.0], [0.0, 1.0]], "lead from every residue type"),
        ([[1.0, 0.0], [0.5, 0.5]], "lead from every residue type"),
    ],
)
def test_unusable_substitution_matrices_are_refused(matrix, message):
    with pytest.raises(ValueError, match=message):
        SubstitutionKernel(matrix)


def test_build_kernel_refuses_what_it_cannot_build():
    with pytest.raises(ValueError, match="'gaussian'"):
        build_kernel("gaussian", None)
    with pytest.raises(ValueError, match="needs a substitution_matrix"):
        build_kernel("substitution", None)
    with pytest.raises(ValueError, match="20 residue types"):
        build_kernel("substitution", [[0.5, 0.5], [0.5, 0.5]])
