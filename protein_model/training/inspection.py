"""What is in a checkpoint, and whether it is whole: read from a folder or a single file, as a report.

Every file is verified first, and only what verifies is read; so a damaged checkpoint still shows what is left of it.
Nothing here needs the model or the data of the run. How a report looks on screen is left to `inspection_text`.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from .checkpoints import (
    MANIFEST,
    STATE_FOLDER,
    SUPERSEDED,
    CheckpointError,
    CheckpointStore,
    DamagedCheckpoint,
    Manifest,
    file_problem,
    is_checkpoint,
    pickle_problem,
    read_manifest,
    strangers,
)
from .layout import CONFIG_FILE, SETTINGS_FILE, WEIGHTS_FILE, registered_file
from .progress import BestValidation, LossHistory, TrainingProgress
from .schedule import Schedule
from .single_file import FULL_STATE, KEYS, MALFORMED, NotACheckpoint, epochs_finished, read_single_file

_FINE = 1000  # steps per epoch, to tell the rate at the end of an epoch where the steps of the run are not known


@dataclass(frozen=True)
class FileReport:
    """One file of a checkpoint, or one entry of a single file.

    Attributes
    ----------
    name : relative to the checkpoint
    size : bytes; of an entry, those of its tensors; None where the file is missing
    problem : what is wrong with it, None where it is as it was written
    """

    name: str
    size: int | None
    problem: str | None = None


@dataclass(frozen=True)
class ScheduleReport:
    """The learning rate now and later.

    Attributes
    ----------
    peak : highest rate
    start_epoch : where this schedule took over from an earlier one; 0 where there was none
    warmup_epochs : from there to the peak
    total_epochs : end of the cosine
    next_rate : of the next optimizer step
    last_rate : of the last optimizer step of the schedule
    """

    peak: float
    start_epoch: float
    warmup_epochs: float
    total_epochs: float
    next_rate: float
    last_rate: float


@dataclass
class CheckpointReport:
    """What is in a checkpoint. None and empty values are what could not be read or is not in it.

    Attributes
    ----------
    path : of the checkpoint
    kind : "folder" or "file"
    problems : everything that is wrong, one sentence each; empty for a checkpoint that is whole
    remarks : on what was found, one sentence each
    checksums : it has checksums, and they were compared
    missing : keys that a single file lacks
    files : of a folder, or entries of a single file
    epoch, step : done
    steps_per_epoch, step_in_epoch : of the data it was trained on; steps of an unfinished epoch
    shards, seed : micro-batches per optimizer step; of the run
    epochs : losses and more of every finished epoch
    best_loss, best_epoch, epochs_without_improvement : of the validation, nats per residue
    schedule : learning rate now and at the end
    parameters : numbers in the trained weights
    config : of the model
    settings, data, processes, mixed_precision, versions : of the run that wrote it
    """

    path: Path
    kind: str
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    checksums: bool = True
    missing: list[str] = field(default_factory=list)
    files: list[FileReport] = field(default_factory=list)
    epoch: int | None = None
    step: int | None = None
    steps_per_epoch: int | None = None
    step_in_epoch: int | None = None
    shards: int | None = None
    seed: int | None = None
    epochs: list[dict[str, float]] = field(default_factory=list)
    best_loss: float | None = None
    best_epoch: int | None = None
    epochs_without_improvement: int | None = None
    schedule: ScheduleReport | None = None
    parameters: int | None = None
    config: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    processes: int | None = None
    mixed_precision: str | None = None
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes in all."""
        return self.path.stat().st_size if self.kind == "file" else sum(file.size or 0 for file in self.files)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is not finite becomes None."""
        return _plain({**vars(self), "ok": not self.problems, "size": self.size})


@dataclass
class SaveFolderReport:
    """All checkpoints of a save folder.

    Attributes
    ----------
    path : of the folder
    checkpoints : the one with the most steps first
    newest_good : name of the one that `--resume_from latest` goes on from, None where none is whole
    leftovers : of interrupted saves
    superseded : checkpoints that a run which went back set aside; they are not verified
    """

    path: Path
    checkpoints: list[CheckpointReport]
    newest_good: str | None
    leftovers: list[str]
    superseded: list[str]

    @property
    def problems(self) -> list[str]:
        """Of all checkpoints."""
        return [problem for report in self.checkpoints for problem in report.problems]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return _plain({**vars(self), "kind": "save folder", "ok": not self.problems})


Advance = Callable[[int], object]


def inspect_path(path: Path, advance: Advance = lambda size: None) -> CheckpointReport | SaveFolderReport:
    """Read and verify a checkpoint folder, a single file, or every checkpoint of a save folder.

    Parameters
    ----------
    advance : called with the bytes of every file that has been checked

    Raises
    ------
    NotACheckpoint : it is none of these
    """
    if path.is_file():
        return inspect_file(path, advance)
    if not path.is_dir():
        raise NotACheckpoint(f"{path}: there is no such file or folder")
    if is_checkpoint(path):
        return inspect_folder(path, advance)
    store = CheckpointStore(path)
    leftovers = [leftover.name for leftover in store.leftovers()]
    found = store.resumable()
    if not found and not leftovers:
        raise NotACheckpoint(f"{path}: is neither a checkpoint nor a folder with checkpoints")
    reports = [inspect_folder(folder, advance) for folder in found]
    good = next((report.path.name for report in reports if not report.problems), None)
    aside = path / SUPERSEDED
    superseded = sorted(folder.name for folder in aside.iterdir()) if aside.is_dir() else []
    return SaveFolderReport(path, reports, good, leftovers, superseded)


def total_size(path: Path) -> int:
    """Bytes that `inspect_path` will check."""
    if path.is_file():
        return path.stat().st_size
    folders = [path] if is_checkpoint(path) else CheckpointStore(path).resumable()
    return sum(file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file())


# ---------------------------------------------------------------------- folders


def inspect_folder(folder: Path, advance: Advance) -> CheckpointReport:
    """Read and verify a checkpoint folder."""
    report = CheckpointReport(folder, "folder")
    try:
        manifest = read_manifest(folder)
    except CheckpointError as error:
        # Without its manifest nothing can be told about the other files but that they are there.
        report.problems.append(str(error))
        report.files = [
            FileReport(file.relative_to(folder).as_posix(), file.stat().st_size)
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        ]
        return report
    report.step, report.epoch, report.versions = manifest.step, manifest.epoch, manifest.versions
    report.files = _verified(folder, manifest, advance)
    report.problems += [file.problem for file in report.files if file.problem is not None]
    _read_folder(report, manifest)
    return report


def _verified(folder: Path, manifest: Manifest, advance: Advance) -> list[FileReport]:
    reports = [FileReport(MANIFEST, (folder / MANIFEST).stat().st_size)]
    for name, (size, digest) in manifest.files.items():
        path = folder / name
        problem = file_problem(path, size, digest)
        if problem is None and path.parent.name == STATE_FOLDER:
            problem = pickle_problem(path)
        present = path.stat().st_size if path.is_file() else None
        reports.append(FileReport(name, present, problem))
        advance(present or 0)
    reports += [
        FileReport(path.relative_to(folder).as_posix(), path.stat().st_size, f"{path}: is not part of this checkpoint")
        for path in strangers(folder, manifest)
    ]
    return reports


def _read_folder(report: CheckpointReport, manifest: Manifest) -> None:
    """Fill in what the undamaged files tell."""
    folder = report.path
    good = {file.name for file in report.files if file.problem is None}

    def registered(name: str) -> dict[str, Any] | None:
        if name not in manifest.registered:
            return None
        file = f"{STATE_FOLDER}/{registered_file(manifest.registered.index(name))}"
        return torch.load(folder / file, map_location="cpu", weights_only=True) if file in good else None

    def document(name: str) -> dict[str, Any]:
        return json.loads((folder / name).read_text(encoding="utf-8")) if name in good else {}

    weights = f"{STATE_FOLDER}/{WEIGHTS_FILE}"
    try:
        report.config = document(CONFIG_FILE)
        if weights in good:
            with safe_open(folder / weights, "pt") as tensors:
                shapes = [tensors.get_slice(name).get_shape() for name in tensors.keys()]  # noqa: SIM118
            report.parameters = sum(math.prod(shape) for shape in shapes)
        run = document(SETTINGS_FILE)
        _read_run(report, run)
        _read_registered(report, registered, run.get("schedule"))
    except MALFORMED as error:
        # The checksums are right, so somebody wrote it like this.
        report.problems.append(f"{folder}: its content is not that of a checkpoint ({error!r})")


def _read_run(report: CheckpointReport, run: dict[str, Any]) -> None:
    report.settings, report.data = run.get("settings", {}), run.get("data", {})
    report.shards = run.get("shards")
    report.processes, report.mixed_precision = run.get("processes"), run.get("mixed_precision")
    report.versions = report.versions or run.get("versions", {})


def _read_registered(
    report: CheckpointReport, registered: Callable[[str], dict[str, Any] | None], schedule: dict[str, Any] | None
) -> None:
    if (state := registered("progress")) is not None:
        progress = TrainingProgress(1, 1, 0)
        progress.load_state_dict(state)
        report.step, report.epoch = progress.step, progress.epochs_recorded
        report.steps_per_epoch = progress.steps_per_epoch
        report.step_in_epoch = progress.step - progress.epochs_recorded * progress.steps_per_epoch
        report.shards, report.seed = progress.shards, progress.seed
    if (state := registered("loss_history")) is not None:
        history = LossHistory()
        history.load_state_dict(state)
        report.epochs = history.epochs
    if (state := registered("best_validation")) is not None:
        best = BestValidation()
        best.load_state_dict(state)
        report.best_loss, report.best_epoch = best.loss, best.epoch
        report.epochs_without_improvement = best.epochs_without_improvement
    if schedule is not None and report.steps_per_epoch is not None and report.step is not None:
        report.schedule = _schedule(Schedule.from_dict(schedule), report.steps_per_epoch, report.step)


# ---------------------------------------------------------------------- single files


def inspect_file(file: Path, advance: Advance) -> CheckpointReport:
    """Read and verify a single-file checkpoint, of this package or of another program.

    Raises
    ------
    NotACheckpoint : the file is something else
    """
    report = CheckpointReport(file, "file")
    try:
        document = read_single_file(file)
    except DamagedCheckpoint as error:
        report.problems.append(str(error))
        return report
    finally:
        advance(file.stat().st_size)
    report.missing = [key for key in (*KEYS, FULL_STATE) if key not in document]
    report.files = [FileReport(str(name), _bytes(value)) for name, value in document.items()]
    report.parameters = sum(
        tensor.numel() for part in ("encoder", "decoder") for tensor in document[f"{part}_state_dict"].values()
    )
    report.checksums = zipfile.is_zipfile(file)
    report.epoch, remark = epochs_finished(document, file)
    report.remarks += [remark] if remark is not None else []
    if FULL_STATE in document:
        full = document[FULL_STATE]
        try:
            report.config, report.versions = full["config"], full["versions"]
            _read_run(report, full["run"])
            _read_registered(report, full["registered"].get, full["run"].get("schedule"))
        except MALFORMED as error:
            report.problems.append(f"{file}: {FULL_STATE} is not that of a checkpoint ({error!r})")
    else:
        _read_plain_keys(report, document)
    return report


def _read_plain_keys(report: CheckpointReport, document: dict[str, Any]) -> None:
    report.best_loss = document.get("loss")
    columns = {"train_loss": document.get("train_losses", []), "validation_loss": document.get("val_losses", [])}
    length = max(map(len, columns.values()))
    for index in range(length):
        losses = {name: values[index] for name, values in columns.items() if index < len(values)}
        report.epochs.append({"epoch": (report.epoch or length) - length + index + 1, **losses})
    if all(key in document for key in ("max_lr", "warmup_epochs", "total_epochs")):
        warmup_steps, total_steps = (round(document[key] * _FINE) for key in ("warmup_epochs", "total_epochs"))
        schedule = Schedule(document["max_lr"], warmup_steps, total_steps)
        report.schedule = _schedule(schedule, _FINE, (report.epoch or 0) * _FINE)


def _bytes(value: Any) -> int:
    """Bytes of the tensors in a value."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        return sum(map(_bytes, value.values()))
    return sum(map(_bytes, value)) if isinstance(value, (list, tuple)) else 0


def _schedule(schedule: Schedule, steps_per_epoch: int, step: int) -> ScheduleReport:
    return ScheduleReport(
        peak=schedule.peak,
        start_epoch=schedule.start_step / steps_per_epoch,
        warmup_epochs=schedule.warmup_steps / steps_per_epoch,
        total_epochs=schedule.total_steps / steps_per_epoch,
        next_rate=schedule.rate(step),
        last_rate=schedule.rate(schedule.total_steps - 1),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, (CheckpointReport, SaveFolderReport)):
        return value.to_dict()
    if isinstance(value, (FileReport, ScheduleReport)):
        return _plain(vars(value))
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__
