"""The loss history as files that other programs read: `history.json` and `history.csv`."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from ..data.storage import write_atomically
from .progress import BestValidation, LossHistory

HISTORY_FILE = "history.json"
HISTORY_TABLE = "history.csv"


def write_history(folder: Path, history: LossHistory, best: BestValidation) -> None:
    """Replace both files.

    Raises
    ------
    OSError : the disk is full, or the folder cannot be written to
    """
    document = {"best": best.state_dict(), **history.state_dict()}
    write_atomically(folder / HISTORY_FILE, json.dumps(document, indent=1))
    write_atomically(folder / HISTORY_TABLE, history_table(history))


def history_table(history: LossHistory) -> str:
    """One line per epoch, one column per measurement, comma-separated; empty where an epoch does not have it."""
    columns = list(dict.fromkeys(name for entry in history.epochs for name in entry))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history.epochs)
    return text.getvalue()
