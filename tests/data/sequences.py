"""Relatives of protein sequences, made at random, and what an alignment of every pair says of them."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from Bio.Align import PairwiseAligner, substitution_matrices

LETTERS = "ACDEFGHIKLMNPQRSTVWY"


def random_sequence(generator: np.random.Generator, length: int) -> str:
    return "".join(generator.choice(list(LETTERS), length))


def relative(generator: np.random.Generator, sequence: str, identity: float, indels: int = 0) -> str:
    """A share of the residues substituted, some short stretches taken out or put in."""
    residues = list(sequence)
    for place in generator.choice(len(residues), round((1 - identity) * len(residues)), replace=False):
        residues[place] = generator.choice([letter for letter in LETTERS if letter != residues[place]])
    for _ in range(indels):
        place, length = int(generator.integers(len(residues))), int(generator.integers(1, 5))
        if generator.random() < 0.5:
            del residues[place : place + length]
        else:
            residues[place:place] = generator.choice(list(LETTERS), length).tolist()
    return "".join(residues)


def family(generator: np.random.Generator, sequence: str, size: int) -> list[str]:
    """Relatives of 50 to 100 % identity: point mutants, fragments, with other domains before or behind."""
    members = []
    for _ in range(size):
        member = relative(generator, sequence, generator.uniform(0.5, 1.0), int(generator.integers(0, 4)))
        kind = generator.integers(4)
        if kind == 0:
            cut = int(generator.integers(len(member) // 5 + 1))
            member = member[cut:] if generator.random() < 0.5 else member[: len(member) - cut]
        elif kind == 1:
            member = random_sequence(generator, 60) + member
        elif kind == 2:
            member += random_sequence(generator, 60)
        members.append(member)
    return members


def similarity_of_pairs(sequences: list[str]) -> dict[tuple[int, int], tuple[float, float]]:
    """(identity, share of the shorter one that is aligned) of the best local alignment of every pair."""
    aligner = PairwiseAligner(
        mode="local",
        substitution_matrix=substitution_matrices.load("BLOSUM62"),
        open_gap_score=-12,
        extend_gap_score=-1,
    )
    found = {}
    for first, second in combinations(range(len(sequences)), 2):
        alignments = aligner.align(sequences[first], sequences[second])
        if alignments.score <= 0:
            found[first, second] = (0.0, 0.0)
            continue
        pairs = [
            (sequences[first][i], sequences[second][j])
            for (start, stop), (other, _) in zip(*alignments[0].aligned, strict=True)
            for i, j in zip(range(start, stop), range(other, other + stop - start), strict=True)
        ]
        identical = sum(one == two for one, two in pairs)
        shorter = min(len(sequences[first]), len(sequences[second]))
        found[first, second] = (identical / len(pairs), len(pairs) / shorter)
    return found
