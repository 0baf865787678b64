"""Corruption, posteriors and likelihood bounds against Bayes' rule and against enumeration of all that can happen."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from protein_model.model.diffusion import DiscreteDiffusion, inverse_cdf
from protein_model.model.kernels import AbsorbingKernel, SubstitutionKernel, UniformKernel, build_kernel
from protein_model.training.substitution import blosum62_transition_matrix

NAMES = ("absorbing", "uniform", "substitution")
KERNELS = {
    "absorbing": build_kernel("absorbing", None),
    "uniform": build_kernel("uniform", None),
    "substitution": build_kernel("substitution", blosum62_transition_matrix()),
}
# Three letters; the matrix is reversible and far from symmetric.
TOY_KERNELS = {
    "absorbing": AbsorbingKernel(3),
    "uniform": UniformKernel(3),
    "substitution": SubstitutionKernel([[0.8, 0.15, 0.05], [0.45, 0.4, 0.15], [0.25, 0.25, 0.5]]),
}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]
alphas = st.floats(0, 1).flatmap(lambda a: st.floats(0, 1).map(lambda b: (min(a, b), max(a, b))))
retention_pairs = st.one_of(
    alphas, st.floats(1e-3, 1).map(lambda a: (0.0, a)), st.floats(0, 0.999).map(lambda a: (a, 1.0)), st.just((0.0, 1.0))
).filter(lambda pair: pair[1] - pair[0] > 1e-6)


def generator_of(seed, device="cpu"):
    return torch.Generator(device).manual_seed(seed)


def random_probabilities(*shape, seed, zeros=False):
    """Rows that sum to one; some entries exactly zero if asked for."""
    random = np.random.default_rng(seed)
    weights = random.exponential(size=shape) ** 2 + 1e-3
    if zeros:
        weights *= random.random(shape) < 0.6
        weights[weights.sum(-1) == 0] = 1.0
    return torch.from_numpy(weights / weights.sum(-1, keepdims=True))


def posterior_by_bayes(kernel, x_t, p0, alpha_t, alpha_s):
    """(states,) one residue, term by term. x_t is None where nothing is known of it."""
    types, states = kernel.num_types, kernel.num_states
    to_s = kernel.transition(torch.tensor(alpha_s, dtype=torch.float64)).numpy()
    s_to_t = kernel.transition(torch.tensor(alpha_t / alpha_s, dtype=torch.float64)).numpy()
    column = np.ones(states) if x_t is None else s_to_t[:, x_t] / s_to_t[:, x_t].max()  # may be next to nothing
    result = np.zeros(states)
    for x_0 in range(types):
        joint = [to_s[x_0, x_s] * column[x_s] for x_s in range(states)]
        if sum(joint) > 0:
            result += float(p0[x_0]) * np.array(joint) / sum(joint)
    return result / result.sum()


# --- noise levels and times


@pytest.mark.parametrize("num_steps", [1, 2, 3, 100, 1000])
@pytest.mark.parametrize("name", NAMES)
def test_retention_falls_from_exactly_one_to_exactly_zero(name, num_steps):
    diffusion = DiscreteDiffusion(KERNELS[name], num_steps)
    alpha_bar = diffusion.alpha_bar(torch.arange(num_steps + 1))
    assert alpha_bar[0] == 1.0
    assert alpha_bar[-1] == 0.0
    assert (alpha_bar.diff() < 0).all()
    halves = diffusion.alpha_bar(torch.arange(0, num_steps + 0.5, 0.5))
    assert torch.equal(halves[::2], alpha_bar)
    assert (halves.diff() < 0).all()
    noise = diffusion.noise_level(torch.arange(num_steps + 1))
    assert noise.dtype == torch.float32
    assert torch.equal(noise, (1 - alpha_bar).float())


@pytest.mark.parametrize("name", NAMES)
def test_noise_level_depends_on_the_share_of_time_only(name):
    few, many = DiscreteDiffusion(KERNELS[name], 8), DiscreteDiffusion(KERNELS[name], 64)
    assert torch.equal(few.noise_level(torch.arange(9)), many.noise_level(torch.arange(9) * 8))


def test_half_way_the_linear_and_the_cosine_schedule_keep_half():
    for kernel in KERNELS.values():
        assert float(DiscreteDiffusion(kernel, 10).alpha_bar(torch.tensor(5))) == pytest.approx(0.5, abs=1e-15)
    quarter = torch.tensor(2.5)
    assert float(DiscreteDiffusion(KERNELS["absorbing"], 10).alpha_bar(quarter)) == 0.75
    cosine = float(DiscreteDiffusion(KERNELS["uniform"], 10).alpha_bar(quarter))
    assert cosine == pytest.approx((1 + math.sqrt(0.5)) / 2)


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        DiscreteDiffusion(KERNELS["uniform"], 0)


@settings(deadline=None)
@given(num_steps=st.integers(1, 60), count=st.integers(0, 200), seed=st.integers(0, 2**31))
def test_times_are_spread_evenly(num_steps, count, seed):
    times = DiscreteDiffusion(KERNELS["absorbing"], num_steps).sample_times(count, 0.0, generator_of(seed))
    assert times.shape == (count,)
    assert times.dtype == torch.int64
    counts = torch.bincount(times, minlength=num_steps + 1)
    assert len(counts) == num_steps + 1
    assert counts[0] == 0
    # An interval of 1/T of the strata holds count / T of them, one more or less.
    assert ((counts[1:] - count / num_steps).abs() <= 1 + 1e-9).all()


def test_each_structure_has_uniform_times():
    diffusion, draws = DiscreteDiffusion(KERNELS["absorbing"], 5), 4000
    generator = generator_of(3)
    times = torch.stack([diffusion.sample_times(3, 0.0, generator) for _ in range(draws)])
    for column in times.T:
        assert_frequencies(torch.bincount(column, minlength=6)[1:], torch.full((5,), 0.2))


def test_share_of_fully_masked_structures():
    diffusion = DiscreteDiffusion(KERNELS["absorbing"], 1000)
    times = diffusion.sample_times(20000, 0.1, generator_of(0))
    assert 0.09 < float((times == 1000).double().mean()) < 0.115
    assert (diffusion.sample_times(50, 1.0, generator_of(0)) == 1000).all()


def assert_frequencies(counts, probabilities):
    """Chi-square test at about five standard deviations."""
    expected = probabilities.double() * counts.sum()
    assert (counts[probabilities == 0] == 0).all()
    possible = expected > 0
    statistic = float(((counts[possible] - expected[possible]).square() / expected[possible]).sum())
    freedom = int(possible.sum()) - 1
    assert statistic < freedom + 6 * math.sqrt(2 * freedom + 1)


# --- corruption


@pytest.mark.parametrize("t", [1, 4, 7])
@pytest.mark.parametrize("name", NAMES)
def test_corrupted_residues_follow_the_transition_matrix(name, t):
    kernel, copies = KERNELS[name], 20000
    diffusion = DiscreteDiffusion(kernel, 8)
    for residue_type in (0, 9, 18):
        clean = torch.full((copies,), residue_type)
        tokens, _ = diffusion.corrupt(clean, torch.tensor([t]), torch.zeros_like(clean), generator_of(t))
        row = kernel.transition(diffusion.alpha_bar(torch.tensor(t)))[residue_type]
        assert_frequencies(torch.bincount(tokens, minlength=kernel.num_states), row)


@pytest.mark.parametrize("name", NAMES)
def test_residues_are_corrupted_independently(name):
    kernel, copies = TOY_KERNELS[name], 40000
    diffusion = DiscreteDiffusion(kernel, 4)
    index = torch.arange(copies).repeat_interleave(2)
    clean = torch.tensor([0, 2]).repeat(copies)
    tokens, _ = diffusion.corrupt(clean, torch.full((copies,), 2), index, generator_of(5))
    pairs = tokens.view(copies, 2) @ torch.tensor([kernel.num_states, 1])
    rows = kernel.transition(diffusion.alpha_bar(torch.tensor(2)))
    expected = torch.outer(rows[0], rows[2]).flatten()
    assert_frequencies(torch.bincount(pairs, minlength=len(expected)), expected)


@settings(deadline=None)
@given(name=st.sampled_from(NAMES), num_steps=st.integers(1, 20), seed=st.integers(0, 2**31))
def test_what_corruption_returns(name, num_steps, seed):
    diffusion = DiscreteDiffusion(KERNELS[name], num_steps)
    random = generator_of(seed)
    index = torch.arange(6).repeat_interleave(torch.randint(1, 9, (6,), generator=random))
    clean = torch.randint(0, 21, (len(index),), generator=random)
    times = torch.randint(1, num_steps + 1, (6,), generator=random)
    times[2] = num_steps
    tokens, scored = diffusion.corrupt(clean, times, index, random)
    known = clean < 20
    assert tokens.dtype == torch.int64
    assert (tokens[~known] == 20).all()
    assert (tokens[times[index] == num_steps] == 20).all()
    if name == "absorbing":
        assert ((tokens == clean) | (tokens == 20)).all()
        assert torch.equal(scored, known & (tokens == 20))
    else:
        assert torch.equal(scored, known)
        assert (tokens[known & (times[index] < num_steps)] < 20).all()


@pytest.mark.parametrize("name", NAMES)
def test_draws_depend_on_the_seed_and_on_no_other_residue(name):
    diffusion = DiscreteDiffusion(KERNELS[name], 10)
    clean = torch.randint(0, 20, (300,), generator=generator_of(0))
    index = torch.arange(3).repeat_interleave(100)
    times = torch.tensor([3, 10, 8])
    tokens, scored = diffusion.corrupt(clean, times, index, generator_of(1))
    again, scored_again = diffusion.corrupt(clean, times, index, generator_of(1))
    assert torch.equal(tokens, again)
    assert torch.equal(scored, scored_again)
    assert not torch.equal(tokens, diffusion.corrupt(clean, times, index, generator_of(2))[0])

    changed = clean.clone()
    changed[:50] = 20
    first, second = generator_of(1), generator_of(1)
    diffusion.corrupt(clean, times, index, first)
    others, _ = diffusion.corrupt(changed, torch.tensor([3, 2, 8]), index, second)
    assert torch.equal(others[50:100], tokens[50:100])
    assert torch.equal(others[200:], tokens[200:])
    assert torch.equal(first.get_state(), second.get_state())


def test_inverse_cdf_never_draws_the_impossible():
    probabilities = torch.tensor([0.0, 0.1, 0.0, 0.7, 0.2, 0.0], dtype=torch.float64)
    uniform = torch.tensor([0.0, 0.0999, 0.1001, 0.7999, 0.8001, 1 - 2**-53], dtype=torch.float64)
    drawn = inverse_cdf(probabilities.expand(2, 6, 6), uniform.expand(2, 6))
    assert drawn.tolist() == [[1, 1, 3, 3, 4, 4]] * 2


# --- posterior


@settings(deadline=None, max_examples=300)
@given(name=st.sampled_from(NAMES), pair=retention_pairs, seed=st.integers(0, 2**31), zeros=st.booleans())
@example(name="absorbing", pair=(5e-324, 1.0), seed=0, zeros=False)
@example(name="absorbing", pair=(5e-324, 1.0), seed=0, zeros=True)
def test_posterior_is_that_of_bayes(name, pair, seed, zeros):
    kernel, (alpha_t, alpha_s) = TOY_KERNELS[name], pair
    diffusion = DiscreteDiffusion(kernel, 10)
    # At full noise there is only token 3; otherwise the absorbing kernel has it as a state and the others not at all.
    tokens = [3] if alpha_t == 0 else list(range(kernel.num_states))
    p0 = random_probabilities(len(tokens), 3, seed=seed, zeros=zeros)
    posterior = diffusion.posterior(torch.tensor(tokens), p0, alpha_t, alpha_s)
    assert posterior.shape == (len(tokens), kernel.num_states)
    assert (posterior >= 0).all()
    torch.testing.assert_close(posterior.sum(-1), torch.ones(len(tokens), dtype=torch.float64), atol=1e-14, rtol=0)
    for row, token in enumerate(tokens):
        if name == "absorbing" and token < 3 and p0[row, token] == 0:
            continue  # contradictory; see the test below
        expected = posterior_by_bayes(kernel, None if alpha_t == 0 else token, p0[row], alpha_t, alpha_s)
        np.testing.assert_allclose(posterior[row], expected, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_posterior_of_all_twenty_types(name):
    kernel = KERNELS[name]
    diffusion = DiscreteDiffusion(kernel, 10)
    tokens = torch.arange(kernel.num_states)
    p0 = random_probabilities(len(tokens), 20, seed=4)
    posterior = diffusion.posterior(tokens, p0, 0.3, 0.45)
    expected = [posterior_by_bayes(kernel, token, row, 0.3, 0.45) for token, row in zip(tokens, p0, strict=True)]
    np.testing.assert_allclose(posterior, np.array(expected), atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_clean_residues_follow_the_prediction(name):
    diffusion = DiscreteDiffusion(KERNELS[name], 10)
    states = diffusion.kernel.num_states
    p0 = random_probabilities(40, 20, seed=1, zeros=True)
    masked = torch.full((40,), 20)
    for alpha_t in (0.0, 0.4):
        posterior = diffusion.posterior(masked, p0, alpha_t, 1.0)
        torch.testing.assert_close(posterior[:, :20], p0, atol=1e-15, rtol=0)
        assert (posterior[:, :20][p0 == 0] == 0).all()
        assert (posterior[:, 20:] == 0).all()
    if name != "absorbing":
        posterior = diffusion.posterior(torch.arange(40) % states, p0, 0.4, 1.0)
        torch.testing.assert_close(posterior, p0, atol=1e-14, rtol=0)
        assert (posterior[p0 == 0] == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_one_step_is_the_prediction(name):
    diffusion = DiscreteDiffusion(KERNELS[name], 1)
    clean = torch.arange(20)
    tokens, scored = diffusion.corrupt(
        clean, diffusion.sample_times(1, 0.0, generator_of(0)), torch.zeros(20, dtype=torch.int64), generator_of(0)
    )
    assert (tokens == 20).all()
    assert scored.all()
    p0 = random_probabilities(20, 20, seed=2)
    alpha_t, alpha_s = diffusion.alpha_bar(torch.tensor([1, 0])).tolist()
    assert torch.equal(diffusion.posterior(tokens, p0, alpha_t, alpha_s)[:, :20], p0 / p0.sum(-1, keepdim=True))
    nll = -p0[clean, clean].log()
    torch.testing.assert_close(diffusion.bound_term(clean, tokens, p0, 1), nll, atol=1e-12, rtol=0)


def test_residues_once_unmasked_stay():
    diffusion = DiscreteDiffusion(KERNELS["absorbing"], 10)
    tokens = torch.arange(20)
    contradicting = torch.nn.functional.one_hot((tokens + 1) % 20, 20).double()
    for p0 in (random_probabilities(20, 20, seed=0), contradicting):
        posterior = diffusion.posterior(tokens, p0, 0.25, 0.5)
        torch.testing.assert_close(posterior, torch.eye(21, dtype=torch.float64)[:20])


@pytest.mark.parametrize("pair", [(0.5, 0.5), (0.6, 0.5), (-0.1, 0.5), (0.5, 1.1), (0.0, 0.0)])
def test_retentions_out_of_order_are_refused(pair):
    p0 = random_probabilities(1, 20, seed=0)
    with pytest.raises(ValueError, match="retentions"):
        DiscreteDiffusion(KERNELS["uniform"], 10).posterior(torch.tensor([20]), p0, *pair)


@pytest.mark.parametrize("ladder", [(0.0, 1.0), (0.0, 0.3, 1.0), (0.0, 0.01, 0.2, 0.77, 1.0)])
@pytest.mark.parametrize("name", NAMES)
def test_a_perfect_denoiser_samples_the_data_distribution_in_any_steps(name, ladder):
    kernel = TOY_KERNELS[name]
    diffusion = DiscreteDiffusion(kernel, 10)
    data = torch.tensor([0.6, 0.1, 0.3], dtype=torch.float64)
    marginal = None
    for alpha_t, alpha_s in itertools.pairwise(ladder):
        if alpha_t == 0:
            marginal = diffusion.posterior(torch.tensor([3]), data[None], alpha_t, alpha_s)[0]
            continue
        states = torch.arange(kernel.num_states)
        joint = data[:, None] * kernel.transition(torch.tensor(alpha_t, dtype=torch.float64))[:3]
        backward = diffusion.posterior(states, (joint / joint.sum(0)).T, alpha_t, alpha_s)
        marginal = marginal @ backward
    torch.testing.assert_close(marginal[:3], data, atol=1e-12, rtol=0)


# --- likelihood bounds, on sequences of two or three residues of three types


def toy_prediction(tokens, t, seed=7):
    """(positions, 3) an arbitrary denoiser: a fixed distribution for each position, whole noisy sequence and time."""
    return random_probabilities(len(tokens), 3, seed=[seed, t, *tokens])


def noisy_sequences(diffusion, t):
    """All values that two corrupted residues can have at time t."""
    if t == diffusion.num_steps:
        return [(3, 3)]
    return list(itertools.product(range(diffusion.kernel.num_states), repeat=2))


def sampler_nll(diffusion, x0, predict):
    """-log p(x0) of ancestral sampling, all trajectories summed up."""
    alpha_bar = diffusion.alpha_bar(torch.arange(diffusion.num_steps + 1)).tolist()
    weights = {(3, 3): 1.0}
    for t in range(diffusion.num_steps, 0, -1):
        earlier = dict.fromkeys(itertools.product(range(diffusion.kernel.num_states), repeat=2), 0.0)
        for tokens, weight in weights.items():
            p0 = predict(tokens, t)
            one, two = (
                posterior_by_bayes(
                    diffusion.kernel,
                    None if t == diffusion.num_steps else tokens[i],
                    _consistent(diffusion, tokens[i], p0[i]),
                    alpha_bar[t],
                    alpha_bar[t - 1],
                )
                for i in range(2)
            )
            for a, b in earlier:
                earlier[a, b] += weight * one[a] * two[b]
        weights = earlier
    total = sum(weights[pair] for pair in itertools.product(range(3), repeat=2))
    assert total == pytest.approx(1.0)
    return -math.log(weights[x0])


def _consistent(diffusion, token, p0):
    if diffusion.absorbing and token < 3:
        return torch.nn.functional.one_hot(torch.tensor(token), 3).double()
    return p0


def corrupted_probability(diffusion, x0, tokens, t):
    if t == diffusion.num_steps:
        return 1.0
    matrix = diffusion.kernel.transition(diffusion.alpha_bar(torch.tensor(t)))
    return math.prod(float(matrix[a, b]) for a, b in zip(x0, tokens, strict=True))


def summed_bound(diffusion, x0, predict):
    """The bound as `bound_term` gives it, averaged exactly over corrupted sequences."""
    total = 0.0
    for t in range(1, diffusion.num_steps + 1):
        for tokens in noisy_sequences(diffusion, t):
            weight = corrupted_probability(diffusion, x0, tokens, t)
            if weight > 0:
                terms = diffusion.bound_term(torch.tensor(x0), torch.tensor(tokens), predict(tokens, t), t)
                total += weight * float(terms.sum())
    return total


def enumerated_bound(diffusion, x0, predict):
    """E log q(x_1..x_T | x_0) / p(x_0..x_T) over every trajectory, from single-step matrices and Bayes' rule alone.

    x_T is always (3, 3), under q and under p.
    """
    last = diffusion.num_steps
    alpha_bar = diffusion.alpha_bar(torch.arange(last + 1)).tolist()
    steps = [
        diffusion.kernel.transition(torch.tensor(alpha_bar[t] / alpha_bar[t - 1], dtype=torch.float64)).tolist()
        for t in range(1, last)
    ]
    backward = {}
    for t in range(1, last + 1):
        for tokens in noisy_sequences(diffusion, t):
            p0 = predict(tokens, t)
            backward[t, tokens] = [
                posterior_by_bayes(
                    diffusion.kernel,
                    None if t == last else tokens[i],
                    _consistent(diffusion, tokens[i], p0[i]),
                    alpha_bar[t],
                    alpha_bar[t - 1],
                )
                for i in range(2)
            ]
    total = 0.0
    for middle in itertools.product(*(noisy_sequences(diffusion, t) for t in range(1, last))):
        path = (x0, *middle, (3, 3))
        forward = math.prod(steps[t - 1][path[t - 1][i]][path[t][i]] for t in range(1, last) for i in range(2))
        if forward > 0:
            reverse = math.prod(backward[t, path[t]][i][path[t - 1][i]] for t in range(1, last + 1) for i in range(2))
            total += forward * math.log(forward / reverse)
    return total


@pytest.mark.parametrize("num_steps", [1, 2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_bound_equals_its_enumeration_and_is_above_the_likelihood(name, num_steps):
    diffusion = DiscreteDiffusion(TOY_KERNELS[name], num_steps)
    for x0 in [(0, 2), (1, 1)]:
        bound = summed_bound(diffusion, x0, toy_prediction)
        nll = sampler_nll(diffusion, x0, toy_prediction)
        assert bound == pytest.approx(enumerated_bound(diffusion, x0, toy_prediction), abs=1e-9)
        assert nll <= bound + 1e-9
        if num_steps == 1:
            assert nll == pytest.approx(bound, abs=1e-9)
        else:
            assert nll < bound - 1e-3


@settings(deadline=None)
@given(name=st.sampled_from(NAMES), num_steps=st.integers(1, 30), seed=st.integers(0, 2**31), data=st.data())
def test_bound_terms_are_divergences(name, num_steps, seed, data):
    diffusion = DiscreteDiffusion(KERNELS[name], num_steps)
    t = data.draw(st.integers(1, num_steps))
    clean = torch.randint(0, 21, (30,), generator=generator_of(seed))
    index = torch.zeros_like(clean)
    tokens, _ = diffusion.corrupt(clean, torch.tensor([t]), index, generator_of(seed))
    terms = diffusion.bound_term(clean, tokens, random_probabilities(30, 20, seed=seed), t)
    assert (terms > -1e-12).all()
    assert torch.isfinite(terms).all()
    assert (terms[clean == 20] == 0).all()
    certain = torch.nn.functional.one_hot(clean.clamp(max=19), 20).double()
    torch.testing.assert_close(diffusion.bound_term(clean, tokens, certain, t), torch.zeros_like(terms))


@settings(deadline=None)
@given(num_steps=st.integers(1, 50), seed=st.integers(0, 2**31), data=st.data())
def test_absorbing_bound_term_is_a_weighted_cross_entropy(num_steps, seed, data):
    diffusion = DiscreteDiffusion(KERNELS["absorbing"], num_steps)
    t = data.draw(st.integers(1, num_steps))
    clean = torch.randint(0, 20, (30,), generator=generator_of(seed))
    tokens, masked = diffusion.corrupt(clean, torch.tensor([t]), torch.zeros_like(clean), generator_of(seed))
    p0 = random_probabilities(30, 20, seed=seed)
    nll = -p0.gather(1, clean[:, None])[:, 0].log()
    # (alpha_{t-1} - alpha_t) / (1 - alpha_t) = 1 / t for the linear schedule.
    expected = torch.where(masked, nll / t, 0.0)
    torch.testing.assert_close(diffusion.bound_term(clean, tokens, p0, t), expected, atol=1e-9, rtol=1e-9)


def test_a_ruled_out_clean_type_costs_infinitely_much():
    diffusion = DiscreteDiffusion(KERNELS["uniform"], 4)
    wrong = torch.nn.functional.one_hot(torch.tensor([5]), 20).double()
    assert diffusion.bound_term(torch.tensor([3]), torch.tensor([5]), wrong, 1).item() == math.inf


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("t", [1, 3, 4])
def test_bound_can_be_trained_on(name, t):
    diffusion = DiscreteDiffusion(KERNELS[name], 4)
    clean = torch.arange(20)
    tokens, _ = diffusion.corrupt(clean, torch.tensor([t]), torch.zeros_like(clean), generator_of(0))
    logits = torch.randn(20, 20, generator=generator_of(1), dtype=torch.float64, requires_grad=True)
    diffusion.bound_term(clean, tokens, logits.softmax(-1), t).sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.abs().max() > 0


# --- order-agnostic likelihood


def subsets(length):
    """Every set of masked residues with its probability and weight: k uniform in 1..L, then any k residues."""
    for k in range(1, length + 1):
        for chosen in itertools.combinations(range(length), k):
            yield chosen, 1 / (length * math.comb(length, k)), length / k


def order_agnostic_nll(x0, predict):
    """Expectation of the weighted loss."""
    total = 0.0
    for chosen, probability, weight in subsets(len(x0)):
        p0 = predict(tuple(3 if i in chosen else x0[i] for i in range(len(x0))))
        total -= probability * weight * sum(math.log(p0[i, x0[i]]) for i in chosen)
    return total


def autoregressive_nll(x0, predict):
    """Mean over all orders of decoding one residue after the other."""
    orders = list(itertools.permutations(range(len(x0))))
    total = 0.0
    for order in orders:
        tokens = [3] * len(x0)
        for i in order:
            total -= math.log(predict(tuple(tokens))[i, x0[i]])
            tokens[i] = x0[i]
    return total / len(orders)


def test_weighted_loss_is_the_autoregressive_likelihood_averaged_over_orders():
    def predict(tokens):
        return toy_prediction(tokens, 0)

    for x0 in [(0, 2, 1), (1, 1, 0), (2, 0)]:
        assert order_agnostic_nll(x0, predict) == pytest.approx(autoregressive_nll(x0, predict), abs=1e-12)


def test_many_absorbing_steps_come_to_the_order_agnostic_likelihood():
    # With few steps several residues are unmasked at once, blindly; with many it is one after the other.
    def predict(tokens, t=0):
        return toy_prediction(tokens, 0)

    x0 = (0, 2)
    limit = order_agnostic_nll(x0, predict)
    processes = [DiscreteDiffusion(TOY_KERNELS["absorbing"], steps) for steps in (1, 10, 100)]
    errors = [abs(summed_bound(diffusion, x0, predict) - limit) for diffusion in processes]
    assert errors[0] > 0.1
    assert errors[1] == pytest.approx(errors[0] / 10, rel=1e-6)
    assert errors[2] == pytest.approx(errors[0] / 100, rel=1e-6)


# --- devices and number types


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NAMES)
def test_everything_stays_on_its_device_and_in_its_type(name, device):
    diffusion = DiscreteDiffusion(KERNELS[name], 6)
    random = generator_of(0, device)
    index = torch.arange(4, device=device).repeat_interleave(10)
    clean = torch.randint(0, 21, (40,), generator=random, device=device)
    times = diffusion.sample_times(4, 0.1, random)
    tokens, scored = diffusion.corrupt(clean, times, index, random)
    probabilities = torch.randn(40, 20, generator=random, device=device).softmax(-1)
    posterior = diffusion.posterior(tokens, probabilities, 0.25, 0.5)
    terms = diffusion.bound_term(clean, tokens, probabilities, 6)
    results = [times, diffusion.noise_level(times), tokens, scored, posterior, terms]
    assert {value.device.type for value in results} == {device}
    assert [value.dtype for value in results] == [
        torch.int64,
        torch.float32,
        torch.int64,
        torch.bool,
        torch.float64,
        torch.float64,
    ]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("alpha_t", [0.0, 0.2])
@pytest.mark.parametrize("name", NAMES)
def test_predictions_of_any_precision_give_normalised_posteriors(name, alpha_t, dtype):
    diffusion = DiscreteDiffusion(KERNELS[name], 6)
    probabilities = random_probabilities(21, 20, seed=3).to(dtype)
    posterior = diffusion.posterior(torch.arange(21), probabilities, alpha_t, 0.5)
    torch.testing.assert_close(posterior.sum(-1), torch.ones(21, dtype=torch.float64), atol=1e-14, rtol=0)
