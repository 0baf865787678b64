"""Clusters of sequences against the alignment of every pair: similar ones are together, others are not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protein_model.data.clustering import cluster_sequences
from protein_model.data.similarity import MIN_COVERAGE, MIN_IDENTITY
from protein_model.structures import sequence_of
from tests.data.sequences import LETTERS, family, random_sequence, relative, similarity_of_pairs


def partition(labels: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in set(labels.tolist())}


@pytest.fixture(scope="module")
def sequences(example_structures) -> list[str]:
    """Real sequences, and families of mutants of some of them."""
    generator = np.random.default_rng(1)
    real = [sequence_of(structure.residue_type) for structure in example_structures]
    mutants = [member for sequence in sorted(real, key=len)[::5] for member in family(generator, sequence, 6)]
    return real + mutants


@pytest.fixture(scope="module")
def similarity(sequences) -> dict[tuple[int, int], tuple[float, float]]:
    return similarity_of_pairs(sequences)


def test_similar_sequences_are_in_one_cluster(sequences, similarity):
    labels = cluster_sequences(sequences)
    together = {pair: labels[pair[0]] == labels[pair[1]] for pair in similarity}
    near = [pair for pair, (identity, coverage) in similarity.items() if identity >= 0.7 and coverage >= 0.8]
    less_near = [pair for pair, (identity, coverage) in similarity.items() if 0.5 <= identity < 0.7 and coverage >= 0.8]
    assert len(near) > 30
    assert len(less_near) > 30
    assert [pair for pair in near if not together[pair]] == []
    assert np.mean([together[pair] for pair in less_near]) > 0.98


def test_clusters_hang_together_by_similar_pairs(sequences, similarity):
    """No two sequences are in one cluster without a chain of pairs that an alignment finds similar."""
    labels = cluster_sequences(sequences)
    linked = np.eye(len(sequences), dtype=bool)
    for (first, second), (identity, coverage) in similarity.items():
        if identity >= MIN_IDENTITY and coverage >= MIN_COVERAGE:
            linked[first, second] = linked[second, first] = True
    for _ in range(len(sequences).bit_length()):
        linked = linked @ linked
    for cluster in partition(labels):
        members = sorted(cluster)
        assert linked[np.ix_(members, members)].all(), [sequences[member] for member in members]
    assert len(partition(labels)) > 30


def test_short_chains_do_not_tie_unrelated_ones_together(sequences):
    """A chain of 30 residues has alignments of 40 % identity with many others by chance."""
    generator = np.random.default_rng(0)
    shuffled = ["".join(generator.permutation(list(sequence[:30]))) for sequence in sequences]
    longer = ["".join(generator.permutation(list(sequence))) for sequence in sequences[:41]]
    assert len(partition(cluster_sequences(shuffled + longer))) == len(shuffled) + len(longer)


@pytest.mark.parametrize("length", [12, 20, 30, 45])
def test_short_chains_that_are_nearly_the_same_are_in_one_cluster(length):
    generator = np.random.default_rng(length)
    for _ in range(10):
        chain = random_sequence(generator, length)
        mutant = relative(generator, chain, 0.9)
        within = random_sequence(generator, 80) + mutant + random_sequence(generator, 40)
        labels = cluster_sequences([chain, mutant, within, random_sequence(generator, 100)])
        assert labels[0] == labels[1] == labels[2] != labels[3]


@settings(max_examples=10, deadline=None)
@given(st.randoms(use_true_random=False))
def test_order_and_repetition_do_not_matter(sequences, random):
    chosen = sequences[:10] + sequences[41:56]
    expected = partition(cluster_sequences(chosen))
    order = [*range(len(chosen)), 3, 3, 20]
    random.shuffle(order)
    labels = cluster_sequences([chosen[number] for number in order])
    found = {frozenset(order[place] for place in cluster) for cluster in partition(labels)}
    assert found == expected


@pytest.mark.parametrize("seed", range(5))
def test_ends_that_stick_out_do_not_hide_a_common_part(seed):
    """The common part is 85 % of the shorter one, at the end of one and at the beginning of the other."""
    generator = np.random.default_rng(seed)
    common = random_sequence(generator, 120)
    pair = [random_sequence(generator, 60) + common, relative(generator, common, 0.9) + random_sequence(generator, 20)]
    others = [random_sequence(generator, length) for length in range(100, 240, 10)]
    labels = cluster_sequences([*others[:7], *pair, *others[7:]])
    assert labels[7] == labels[8]
    assert len(partition(labels)) == len(others) + 1


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.text(alphabet=LETTERS + "XBUa-", max_size=30) | st.sampled_from(["A" * 50, "X" * 40, ""]), max_size=8)
)
def test_any_text_is_clustered_and_equal_ones_are_together(texts):
    labels = cluster_sequences([*texts, *texts])
    assert labels.shape == (2 * len(texts),)
    assert labels[: len(texts)].tolist() == labels[len(texts) :].tolist()
    assert set(labels.tolist()) == set(range(len(set(labels.tolist()))))


def test_unknown_residues_make_nothing_similar():
    labels = cluster_sequences(["X" * 40, "X" * 60, "ACDEFGHIKL" + "X" * 50, "MNPQRSTVWY" + "X" * 50])
    assert len(partition(labels)) == 4


def test_work_can_be_ended(sequences):
    seen = 0

    def count() -> None:
        nonlocal seen
        seen += 1
        if seen == 5:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        cluster_sequences(sequences, count)
    assert seen == 5
    seen = 10
    cluster_sequences(sequences[:30] * 2, count)
    assert seen == 40
