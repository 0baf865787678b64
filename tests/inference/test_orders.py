"""How many residues at which step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protein_model.inference.orders import ancestral_steps, counts_done, random_order_steps, steps_for


@given(st.integers(1, 300), st.integers(1, 300))
def test_shares_are_even_and_complete(choices, wanted):
    steps = steps_for(choices, wanted)
    done = counts_done(choices, steps)
    shares = np.diff(done)
    assert steps == min(choices, wanted) and len(done) == steps + 1
    assert done[0] == 0 and done[-1] == choices and shares.min() >= 1 and np.ptp(shares) <= 1
    assert steps_for(choices, None) == choices and steps_for(0, None) == steps_for(0, 5) == 1


@given(st.data())
def test_random_order_follows_the_numbers(data):
    choices, samples = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 4))
    generator = np.random.default_rng(data.draw(st.integers(0, 1000)))
    count = data.draw(st.integers(1, choices))
    todo = np.stack([generator.permutation(choices) < count for _ in range(samples)], axis=1)
    uniform = generator.random((choices, samples))
    steps = steps_for(count, data.draw(st.integers(1, 50)))
    found = random_order_steps(uniform, todo, steps)
    assert ((found >= 0) == todo).all()
    for sample in range(samples):
        chosen = found[todo[:, sample], sample]
        assert np.array_equal(np.bincount(chosen, minlength=steps), np.diff(counts_done(count, steps)))
        assert (np.diff(chosen[np.argsort(uniform[todo[:, sample], sample])]) >= 0).all()


def test_ancestral_steps_are_as_probable_as_retentions_say():
    """At each of four steps a masked residue gets its type with probability 1/4, 1/3, 1/2, 1."""
    uniform = np.random.default_rng(0).random((100_000, 1))
    found = ancestral_steps(uniform, np.ones_like(uniform, bool), 4)
    left = len(found)
    for step, expected in enumerate([1 / 4, 1 / 3, 1 / 2, 1.0]):
        count = int((found == step).sum())
        assert count / left == pytest.approx(expected, abs=0.01)
        left -= count
    assert ancestral_steps(np.array([[0.0], [1 - 1e-16]]), np.array([[True], [False]]), 7).tolist() == [[0], [-1]]
