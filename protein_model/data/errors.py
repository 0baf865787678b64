"""What can go wrong between structure files and a split data set, and the record of what could not be used."""

from __future__ import annotations

import re
from typing import NamedTuple

from ..errors import UserError

_PLACE_OR_VALUE = re.compile(r"^line \d+: |'[^']*' ")


class DataError(UserError):
    """The data cannot be used as asked; the message says which file or option, and what to do."""


class CacheError(DataError):
    """A cache cannot be built or opened."""


class SplitError(DataError):
    """The structures cannot be split as asked."""


class CacheInterrupted(Exception):
    """Building was stopped on request. Finished shards stay and are used by the next `build_cache`."""


class Unusable(NamedTuple):
    """One line of the report: something that is not in the cache.

    Attributes
    ----------
    file : path relative to the data folder
    unit : chain identifier or structure name, empty for the whole file
    reason : kind of fault, then, where there is more to say, a colon and details; a place may come first ("line 7: "),
        and values in quotes may be part of it
    """

    file: str
    unit: str
    reason: str

    @property
    def kind(self) -> str:
        """The reason without place, values and details, for counting."""
        return _PLACE_OR_VALUE.sub("", self.reason).split(": ", 1)[0]
