"""Random numbers as a function of what they are for, never of how many were drawn before.

Every draw of a run comes from a generator seeded by the run's seed and by names and numbers that say what is drawn:
("order", epoch), ("corruption", step, shard), ... So neither the number of processes or workers nor an interruption
can change it.
"""

from __future__ import annotations

import hashlib

import numpy as np


def derived_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed that depends on all arguments and on nothing else, the same on every machine."""
    text = "/".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def numpy_generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """NumPy generator for one purpose."""
    return np.random.Generator(np.random.PCG64(derived_seed(seed, *purpose)))
