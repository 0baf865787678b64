"""The list of what is not in a cache and why, as a file beside the cache and as a few lines on screen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..wording import counted
from .errors import Unusable
from .storage import write_atomically

REPORT_FILE = "report.tsv"
KINDS_SHOWN = 12


def write_report(folder: Path, unusable: Sequence[Unusable]) -> None:
    """Write `report.tsv`: file, unit (chain identifier or structure name, empty for the whole file), reason."""
    lines = ["file\tunit\treason", *("\t".join(map(_one_line, line)) for line in unusable)]
    write_atomically(folder / REPORT_FILE, "\n".join(lines) + "\n")


def _one_line(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def count_by_kind(unusable: Sequence[Unusable]) -> list[str]:
    """One line per kind of reason with its number, the most frequent first."""
    counts = Counter(line.kind for line in unusable)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    lines = [f"{number:>8,} x {kind}" for kind, number in ordered[:KINDS_SHOWN]]
    if len(ordered) > KINDS_SHOWN:
        rest = sum(number for _, number in ordered[KINDS_SHOWN:])
        lines.append(f"{rest:>8,} x {counted(len(ordered) - KINDS_SHOWN, 'other reason')}")
    return lines
