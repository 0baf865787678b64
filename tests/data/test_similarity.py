"""Whether two sequences are similar, against the identity and coverage of their alignment."""

from __future__ import annotations

import numpy as np
import pytest

from protein_model.data.similarity import MIN_COVERAGE, MIN_IDENTITY, similar
from tests.data.sequences import random_sequence, relative, similarity_of_pairs


@pytest.mark.parametrize("seed", range(10))
def test_similar_is_what_its_alignment_says(seed):
    generator = np.random.default_rng(seed)
    sequence = random_sequence(generator, 120)
    identities = np.linspace(0.35, 1, 8)
    others = sorted((relative(generator, sequence, identity, 2) for identity in identities), key=len)
    for other in others:
        shorter, longer = sorted([sequence, other], key=len)
        identity, coverage = similarity_of_pairs([shorter, longer])[0, 1]
        said = similar(shorter, longer)
        assert said <= (identity >= MIN_IDENTITY and coverage >= MIN_COVERAGE)
        assert said >= (identity >= 0.5 and coverage >= 0.8)


def test_nothing_is_similar_to_an_empty_sequence():
    assert not similar("", "ACDEFGHIKL")
