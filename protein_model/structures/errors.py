"""The error of this part of the package: a file that cannot be used, with the reason."""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError


class StructureError(UserError, ValueError):
    """A structure or sequence file cannot be used.

    Attributes
    ----------
    path : the file
    reason : what is wrong with it and, where something can be done, what
    """

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(path, reason)  # both, so that the error survives the way from a worker process
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"
