"""The base of all errors that are about what a person gave; commands show them as one message without a traceback."""

from __future__ import annotations


class UserError(Exception):
    """A file or an option cannot be used as given; the message says which, what is wrong and what to do."""
