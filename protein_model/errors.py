"""The base of all errors that are about what a person gave; commands show them as one message without a traceback.

What a library says of an error has a place in such a message if it is one line.
"""

from __future__ import annotations


class UserError(Exception):
    """A file or an option cannot be used as given; the message says which, what is wrong and what to do."""


def in_words(error: Exception) -> str:
    """What an error says, in one line; of the operating system the reason, with the name of the file if it is known."""
    if isinstance(error, OSError) and error.strerror is not None:
        name = error.filename2 or error.filename  # of two, the one that is written to
        return error.strerror if name is None else f"{name}: {error.strerror}"
    return " ".join(str(error).split())


def first_line(error: Exception) -> str:
    """What an error says, up to the end of its first line that says anything; its type where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
