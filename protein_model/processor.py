"""How this project uses a processor: nothing that changes a result, for a good deal of its time.

These are settings of a whole process. The programs, `train_accelerate.py` and `python -m protein_model`, make that of
memory; every training run makes that of small numbers, since it has to be the same to the last bit wherever it goes on.
"""

from __future__ import annotations

import ctypes
import os
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of settings in malloc.h
_NEVER, _LARGEST = -1, 2**31 - 1


def keep_memory() -> bool:
    """Let memory that was freed be used again, instead of going back to the system at once.

    The C library of Linux gives arrays of more than 32 MB back whenever they are freed. A step of training makes many
    of them, and the system fills each with zeros before the first use: nearly half of a step at hidden size 128.

    A variable `MALLOC_...` or `GLIBC_TUNABLES` in the environment has decided otherwise. Returns whether it is done.
    """
    chosen = any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ)
    if chosen or platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    done = library.mallopt(_MMAP_THRESHOLD, _LARGEST), library.mallopt(_TRIM_THRESHOLD, _NEVER)
    return all(done)


def flush_denormals() -> bool:
    """Treat 32-bit numbers below 1.2e-38 as zero, from now on, in this thread and in those that it starts.

    Training makes many of them (tails of activations, gradients of certain predictions), and processors take many times
    as long to multiply them. It has to come before torch first computes on several threads. Returns whether the
    processor can do it.
    """
    import torch  # not where only the memory is of interest

    return torch.set_flush_denormal(True)
