"""Single linkage: one sequence is compared with those that may be similar, and they come into one set.

Which these are is left to `word_index`, what is similar to `similarity`, going through all sequences to `clustering`.
"""

from __future__ import annotations

import numpy as np

from .similarity import similar
from .word_index import WordIndex

Link = tuple[int, int]


class Labels:
    """Disjoint sets as one array of labels, so that many members can be compared at once."""

    def __init__(self, count: int):
        self.of = np.arange(count)
        self._members = [[member] for member in range(count)]

    def joined(self, first: int, second: int) -> bool:
        return bool(self.of[first] == self.of[second])

    def join(self, first: int, second: int) -> None:
        if self.joined(first, second):
            return
        small, large = sorted((int(self.of[first]), int(self.of[second])), key=lambda label: len(self._members[label]))
        self.of[self._members[small]] = large
        self._members[large] += self._members[small]
        self._members[small] = []


def new_links(index: WordIndex, query: int, labels: Labels) -> list[Link]:
    """Join a query with the similar sequences after it, and give back the pairs that were not in one cluster before.

    Queries are asked for in ascending order.
    """
    links = []
    for other in index.candidates(query, labels.of):
        if not labels.joined(query, other) and similar(index.sequence(query), index.sequence(other)):
            labels.join(query, other)
            links.append((query, other))
    return links
