"""Words that messages of all parts of the package have in common; what the messages say is left to the parts."""

from __future__ import annotations


def counted(number: float, one: str, several: str = "") -> str:
    """A number and what it counts: `1 epoch`, `1,200 epochs`, `0.5 epochs`.

    Parameters
    ----------
    one : what follows a one
    several : what follows any other number; by default `one` with an s
    """
    figure = f"{number:g}" if isinstance(number, float) else f"{number:,}"
    return f"{figure} {one if number == 1 else several or one + 's'}"
