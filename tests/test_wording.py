"""Words that many messages have in common."""

import numpy as np
import pytest

from protein_model.wording import counted


@pytest.mark.parametrize(
    ("number", "words", "text"),
    [
        (0, ("epoch",), "0 epochs"),
        (1, ("epoch",), "1 epoch"),
        (2, ("epoch",), "2 epochs"),
        (1234, ("epoch",), "1,234 epochs"),
        (np.int64(12345678), ("residue",), "12,345,678 residues"),
        (1.0, ("epoch",), "1 epoch"),
        (0.5, ("epoch",), "0.5 epochs"),
        (1, ("process", "processes"), "1 process"),
        (8, ("process", "processes"), "8 processes"),
        (1, ("step is", "steps are"), "1 step is"),
        (21, ("step is", "steps are"), "21 steps are"),
    ],
)
def test_a_number_and_what_it_counts(number, words, text):
    assert counted(number, *words) == text
