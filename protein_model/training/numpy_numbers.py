"""NumPy numbers in a pickled file, read as Python numbers without any NumPy code being called.

Many training loops keep losses as NumPy scalars, which `torch.load(weights_only=True)` refuses. What their pickles
call is replaced here by the few lines below, which decode numbers and can do nothing else.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

_CODES = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "i2": "h", "i1": "b", "u1": "B", "b1": "?"}


class NumberType:
    """What stands for `numpy.dtype`: the kind of a number and its byte order."""

    def __init__(self, code: str, align: bool = False, copy: bool = False):
        if code not in _CODES:
            raise ValueError(f"holds NumPy data of the type {code!r}, which is no number")
        self.code = _CODES[code]
        self.order = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = ">" if state[1] == ">" else "<"


def number(kind: NumberType, data: bytes) -> float | int | bool:
    """What stands for `numpy.core.multiarray.scalar`."""
    [value] = struct.unpack(kind.order + kind.code, data)
    return value


# For `torch.serialization.safe_globals`: what is called, and the name that the pickle calls it by.
READ_AS_PLAIN: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (NumberType, "numpy.dtype"),
    (number, "numpy.core.multiarray.scalar"),
    (number, "numpy._core.multiarray.scalar"),
]
