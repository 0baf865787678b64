"""Reports of `inspection` as text for a terminal or a log file."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ..wording import counted
from .checkpoints import MANIFEST
from .inspection import CheckpointReport, SaveFolderReport

EPOCHS_SHOWN = 5
WIDTH = 120
_LABEL = 14


def checkpoint_text(report: CheckpointReport) -> str:
    """One checkpoint in full."""
    lines = [f"{report.path}: {_state(report)}, {size_text(report.size)}"]
    lines += [f"  {problem}" for problem in report.problems]
    for label, text in _paragraphs(report):
        lines += textwrap.wrap(
            text, WIDTH, initial_indent=f"  {label:{_LABEL}s}", subsequent_indent=" " * (_LABEL + 2)
        ) or [f"  {label}"]
    lines += _losses(report)
    lines += _files(report)
    return "\n".join(lines)


def save_folder_text(report: SaveFolderReport) -> str:
    """A table of the checkpoints in a save folder."""
    rows = [("checkpoint", "epoch", "step", "train loss", "validation loss", "size", "saved", "state")]
    for entry in report.checkpoints:
        last = entry.epochs[-1] if entry.epochs else {}
        rows.append(
            (
                entry.path.name,
                _known(entry.epoch),
                _known(entry.step),
                _loss(last.get("train_loss")),
                _loss(last.get("validation_loss")),
                size_text(entry.size),
                _saved(entry),
                "damaged" if entry.problems else "ok",
            )
        )
    size = sum(entry.size for entry in report.checkpoints)
    lines = [f"{report.path}: {counted(len(report.checkpoints), 'checkpoint')}, {size_text(size)}", *_table(rows)]
    lines += [f"  damaged: {problem}" for problem in report.problems]
    best = next((entry for entry in report.checkpoints if not entry.problems), None)
    if best is not None:
        lines.append(f"  best validation loss {_best(best)}")
    lines.append(
        f"  --resume_from latest goes on from {report.newest_good}"
        if report.newest_good is not None
        else "  no checkpoint is whole: --resume_from latest will refuse to start"
    )
    if report.leftovers:
        lines.append(f"  left by interrupted saves, removed at the next start: {', '.join(report.leftovers)}")
    if report.superseded:
        lines.append(f"  set aside by a run that went back, not checked: {', '.join(report.superseded)}")
    return "\n".join(lines)


def size_text(size: int) -> str:
    """A number of bytes for people."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000  # type: ignore[assignment]
    return f"{size:.1f} GB"


def _state(report: CheckpointReport) -> str:
    kind = "checkpoint" if report.kind == "folder" else "single-file checkpoint"
    if report.problems:
        return f"{kind}, DAMAGED"
    if not report.checksums:
        return f"{kind}, in the format before torch 1.6, which has no checksums"
    return f"{kind}, {'every file verified' if report.kind == 'folder' else 'checksums verified'}"


def _paragraphs(report: CheckpointReport) -> list[tuple[str, str]]:
    paragraphs = []
    if report.epoch is not None:
        total = report.settings.get("epochs") or (report.schedule and f"{report.schedule.total_epochs:g}")
        text = f"epoch {report.epoch}{f' of {total}' if total else ''} done"
        if report.step is not None:
            text += f" · optimizer step {report.step:,}"
        if report.steps_per_epoch is not None:
            text += f" · {counted(report.steps_per_epoch, 'step')} per epoch"
        if report.step_in_epoch:
            text += f" · {counted(report.step_in_epoch, 'step')} of epoch {report.epoch + 1} done"
        paragraphs.append(("progress", text))
    if report.best_loss is not None:
        paragraphs.append(("best", _best(report)))
    if (schedule := report.schedule) is not None:
        paragraphs.append(
            (
                "learning rate",
                f"{schedule.next_rate:.3e} for the next step, {schedule.last_rate:.3e} for the last · warm-up over "
                f"{schedule.warmup_epochs:g} epochs to {schedule.peak:.3e}, cosine to epoch {schedule.total_epochs:g}"
                + (f", begun at epoch {schedule.start_epoch:g}" if schedule.start_epoch else ""),
            )
        )
    if report.shards is not None:
        shards = "1 shard" if report.shards == 1 else f"{report.shards} shards"
        text = f"{shards} per optimizer step, for any number of processes that divides it"
        if report.processes is not None:
            text += f" (written by {report.processes})"
        text += f" · seed {report.seed}" if report.seed is not None else ""
        text += f" · precision {report.mixed_precision}" if report.mixed_precision is not None else ""
        paragraphs.append(("run", text))
    if "fingerprint" in report.data:
        data = report.data
        paragraphs.append(
            (
                "data",
                f"{data.get('training_structures', 0):,} training and {data.get('validation_structures', 0):,} "
                f"validation structures · fingerprint {data['fingerprint']}",
            )
        )
    if report.parameters is not None:
        paragraphs.append(("model", f"{report.parameters:,} parameters{_values(report.config, ' · ')}"))
    if report.settings:
        paragraphs.append(("options", _values(report.settings)))
    if report.versions:
        paragraphs.append(("versions", _values(report.versions)))
    paragraphs += [("remark", remark) for remark in report.remarks]
    if report.missing:
        paragraphs.append(("not in it", ", ".join(report.missing)))
    return paragraphs


def _losses(report: CheckpointReport) -> list[str]:
    if not report.epochs:
        return ["  losses        none in it"] if report.epoch else []
    rows = [("epoch", "train loss", "validation loss")]
    for entry in report.epochs[-EPOCHS_SHOWN:]:
        rows.append((str(entry["epoch"]), _loss(entry.get("train_loss")), _loss(entry.get("validation_loss"))))
    title = f"  losses, nats/residue, of {counted(len(report.epochs), 'epoch')}"
    if len(report.epochs) > EPOCHS_SHOWN:
        title += f" the last {EPOCHS_SHOWN}"
    return [title, *(f"  {line}" for line in _table(rows))]


def _files(report: CheckpointReport) -> list[str]:
    if not report.files:
        return []
    if report.kind == "file":
        rows = [("entry", "size")]
        rows += [(file.name, size_text(file.size)) for file in report.files if file.size]
        return ["  entries, with the size of their tensors", *(f"  {line}" for line in _table(rows))]
    unverified = not any(file.name == MANIFEST for file in report.files) or report.step is None
    rows3 = [("file", "size", "state")]
    for file in report.files:
        state = "not verified" if unverified else "ok" if file.problem is None else "damaged"
        rows3.append((file.name, size_text(file.size) if file.size is not None else "missing", state))
    return ["  files", *(f"  {line}" for line in _table(rows3))]


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Left-aligned first column, right-aligned others but for the last where it is text."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column == 0 or rows[0][column] in ("state", "saved") else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  " + "  ".join(cells).rstrip())
    return lines


def _best(report: CheckpointReport) -> str:
    if report.best_loss is None or not math.isfinite(report.best_loss):
        return "not known yet"
    text = f"{report.best_loss:.4f} nats/residue"
    if report.best_epoch:
        text += f" at epoch {report.best_epoch}"
    if report.epochs_without_improvement:
        text += f" · {counted(report.epochs_without_improvement, 'epoch')} without improvement since"
    return text


def _values(values: dict[str, Any], before: str = "") -> str:
    """`name value` of everything that is set, short."""
    shown = [f"{name} {value}" for name, value in values.items() if not isinstance(value, (list, dict, type(None)))]
    return before + " · ".join(shown) if shown else ""


def _loss(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.4f}"


def _known(value: int | None) -> str:
    return "?" if value is None else str(value)


def _saved(report: CheckpointReport) -> str:
    manifest = report.path / MANIFEST
    if not manifest.exists():
        return "?"
    return datetime.fromtimestamp(manifest.stat().st_mtime).strftime("%Y-%m-%d %H:%M:%S")
