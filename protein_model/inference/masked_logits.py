"""What a model says of masked residues: logits of many sequences, shown in part, on the same encoded backbones.

Which residues are shown, and what is made of the logits, is left to those who ask: `native_likelihood` and `scoring`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..model.decoding import SequenceDecoder
from .sampling import max_pairs


def masked_logits(
    decoder: SequenceDecoder, device: torch.device, shown: np.ndarray, masked: np.ndarray, noise_level: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, Tensor]]:
    """Logits of the masked residues of `D` sequences on `N` residues of `B` structures, as memory allows.

    Parameters
    ----------
    device : of the decoder
    shown : (D, N) residue types as the model sees them, 20 where it sees none
    masked : (D, N) bool, where logits are wanted
    noise_level : (D, B), share of each structure that is masked

    Yields
    ------
    sequences and residues, (P,) each, that logits belong to · these, (P, 20) float32 on the device
    """

    def tensor(values: np.ndarray, dtype: type) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype)).to(device)

    at_once = max(1, max_pairs(device) // masked.shape[1])
    for first in range(0, len(masked), at_once):
        part = slice(first, first + at_once)
        residues, sequences = np.nonzero(masked[part].T)
        logits = decoder.logits(
            tensor(shown[part].T, np.int64),
            tensor(noise_level[part].T, np.float32),
            tensor(residues * len(masked[part]) + sequences, np.int64),
        )
        yield first + sequences, residues, logits
