"""Are two sequences similar enough to be kept together? By their local alignment.

Which pairs are worth an alignment is left to `word_index`, grouping to `clustering`.
"""

from __future__ import annotations

from functools import lru_cache

from Bio.Align import PairwiseAligner, substitution_matrices

# A split by cluster is to keep chains of at least 50 % identity over 80 % of the shorter one together. The limits are
# lower, because an alignment of such a pair does not end exactly where the similarity does. Alignments of a low score
# come about by chance, and short chains would tie unrelated ones together by them (by the Karlin-Altschul statistics of
# this matrix, 30 residues find among a million others one of 52); with a score below `MIN_SCORE` a pair must be nearer.
MIN_IDENTITY, MIN_COVERAGE = 0.4, 0.7
MIN_SCORE = 60
NEAR_IDENTITY, NEAR_COVERAGE = 0.8, 0.8

GAP_OPEN, GAP_EXTEND = 11, 1
SCORE_PER_RESIDUE = 0.7  # of the gapped alignment and the shorter one; pairs of 50 % identity over 80 % have 0.8


def similar(shorter: str, longer: str) -> bool:
    """Is the local alignment of two one-letter sequences good enough to link them?

    It is if at least `MIN_IDENTITY` of the aligned residues are identical and at least `MIN_COVERAGE` of the shorter
    sequence is aligned.
    """
    if not shorter:
        return False
    score = _aligner().score(shorter, longer)
    if score < SCORE_PER_RESIDUE * len(shorter):
        return False  # before the traceback, which takes twice as long
    counts = _aligner().align(shorter, longer)[0].counts()
    aligned = counts.identities + counts.mismatches
    identity, coverage = counts.identities / aligned, aligned / len(shorter)
    if score < MIN_SCORE:
        return identity >= NEAR_IDENTITY and coverage >= NEAR_COVERAGE
    return identity >= MIN_IDENTITY and coverage >= MIN_COVERAGE


@lru_cache(maxsize=1)
def _aligner() -> PairwiseAligner:
    return PairwiseAligner(
        mode="local",
        substitution_matrix=substitution_matrices.load("BLOSUM62"),
        open_gap_score=-GAP_OPEN - GAP_EXTEND,
        extend_gap_score=-GAP_EXTEND,
    )
