"""Numbers and their nouns, for messages: 1 structure, 1,200 structures. Sentences are left to those who say them."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun in the right form.

    Parameters
    ----------
    plural : of the noun, where it is not the noun with an s
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
