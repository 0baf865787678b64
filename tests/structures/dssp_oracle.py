"""DSSP word for word from the paper of Kabsch and Sander (1983), in plain Python loops, for comparison only."""

from __future__ import annotations

import math

import numpy as np


def dssp_states(structure) -> str:
    """H, E or - for each residue."""
    rows = [row for row in range(len(structure)) if structure.backbone_complete[row]]
    xyz = {row: [structure.coordinates[row, atom].astype(float) for atom in range(4)] for row in rows}

    def bonded(first, second):
        return (
            structure.chain_index[first] == structure.chain_index[second]
            and structure.position[second] == structure.position[first] + 1
        )

    count = len(rows)
    linked = [bonded(rows[i], rows[i + 1]) for i in range(count - 1)]

    def unbroken(first, last):
        return first >= 0 and last < count and all(linked[first:last])

    def distance(a, b):
        return max(math.dist(a, b), 0.5)

    def has_bond(acceptor, donor):
        if not (0 <= acceptor < count and 1 <= donor < count) or donor in (acceptor, acceptor + 1):
            return False
        if not linked[donor - 1]:
            return False
        _, ca, c, o = xyz[rows[acceptor]]
        n, donor_ca = xyz[rows[donor]][:2]
        if math.dist(ca, donor_ca) > 9.0:
            return False
        before_c, before_o = xyz[rows[donor - 1]][2:]
        h = n + (before_c - before_o) / math.dist(before_c, before_o)
        energy = 27.888 * (1 / distance(o, n) + 1 / distance(c, h) - 1 / distance(o, h) - 1 / distance(c, n))
        return energy < -0.5

    bond = [[has_bond(acceptor, donor) for donor in range(count)] for acceptor in range(count)]

    def b(acceptor, donor):
        return 0 <= acceptor < count and 0 <= donor < count and bond[acceptor][donor]

    state = ["-"] * count
    turn = {n: [b(i, i + n) and unbroken(i, i + n) for i in range(count)] for n in (3, 4, 5)}
    for i in range(1, count):
        if turn[4][i - 1] and turn[4][i]:
            state[i : i + 4] = "H" * 4

    bridges = []
    for i in range(1, count - 1):
        for j in range(i + 3, count - 1):
            if not (unbroken(i - 1, i + 1) and unbroken(j - 1, j + 1)):
                continue
            if (b(i - 1, j) and b(j, i + 1)) or (b(j - 1, i) and b(i, j + 1)):
                bridges.append((i, j, "parallel"))
            if (b(i, j) and b(j, i)) or (b(i - 1, j + 1) and b(j - 1, i + 1)):
                bridges.append((i, j, "antiparallel"))
    strand = set()
    for i, j, kind in bridges:
        strand |= {i, j}
        for k, m, other in bridges:
            forward = (m - j) if kind == "parallel" else (j - m)
            gaps = (k - i - 1, forward - 1)
            adjacent = other == kind and 0 <= min(gaps) <= 1 and max(gaps) <= 4
            if adjacent and unbroken(i, k) and unbroken(min(j, m), max(j, m)):
                strand |= set(range(i, k + 1)) | set(range(min(j, m), max(j, m) + 1))
    for i in strand:
        if state[i] == "-":
            state[i] = "E"
    for n, letter in ((3, "G"), (5, "I")):
        for i in range(1, count):
            if turn[n][i - 1] and turn[n][i] and all(one in ("-", letter) for one in state[i : i + n]):
                state[i : i + n] = letter * n
    reduced = np.full(len(structure), "-")
    reduced[rows] = [{"G": "H", "I": "H"}.get(one, one) for one in state]
    return "".join(reduced)
