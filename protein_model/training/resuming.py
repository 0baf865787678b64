"""Which checkpoint a launch goes on from, what a resume changes, and what becomes of the schedule.

Everything here happens before anything is loaded; loading itself is left to `trainer`, verifying to `checkpoints`.
"""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from ..data.addresses import is_address, refuse_password
from ..errors import UserError
from ..model.configuration import ProteinModelConfig
from ..wording import counted
from . import compatibility
from .arguments import GivenOptions, Settings
from .checkpoints import CheckpointError, CheckpointStore, ResumePoint, locate, save_folder
from .interchange import import_checkpoint, named_file
from .launching import scaled_learning_rate
from .layout import SETTINGS_FILE
from .mirror import adopt, mirror_address
from .remote_checkpoints import LATEST, fetch_checkpoint, split_address
from .schedule import Schedule, extended, restarted

Say = Callable[[str], None]


@dataclass(frozen=True)
class SavedRun:
    """What a checkpoint says of the run that wrote it, read before anything is loaded.

    Attributes
    ----------
    point : the checkpoint and how it was found
    description : content of its settings file: settings, data, shards, schedule, processes, versions, mixed_precision
    config : of its model
    """

    point: ResumePoint
    description: dict[str, Any]
    config: dict[str, Any]

    @property
    def settings(self) -> dict[str, Any]:
        """Options of that run."""
        return self.description["settings"]

    @property
    def shards(self) -> int:
        """Micro-batches per optimizer step."""
        return int(self.description["shards"])

    @property
    def schedule(self) -> Schedule:
        """Learning rate of that run."""
        return Schedule.from_dict(self.description["schedule"])


def find_saved_run(accelerator: Accelerator, given: GivenOptions, say: Say) -> SavedRun | None:
    """What `--resume_from` means. Process 0 decides, the others follow.

    Returns
    -------
    None for a new run

    Raises
    ------
    CheckpointError : there is no such checkpoint, none that is intact, or the save folder holds another run
    """
    decision: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            decision = [_choose(given, _shards_of_a_new_run(accelerator, given), say)]
        except UserError as error:
            decision = [error]
    if accelerator.num_processes > 1:
        broadcast_object_list(decision)
    if isinstance(decision[0], UserError):
        raise decision[0]
    return decision[0]


def _choose(given: GivenOptions, shards: int, say: Say) -> SavedRun | None:
    resume_from = given.values.get("resume_from")
    save_dir = save_folder(resume_from, given.values.get("save_dir"))
    store = CheckpointStore(save_dir)
    if not given.values.get("dry_run"):
        store.lock(say)
        for line in store.recover():
            say(line)
    mirror = given.values.get("mirror_checkpoints_to")
    if resume_from == LATEST and mirror is not None and not store.resumable():
        resume_from = mirror_address(mirror)  # on a machine that has lost its disk
    if resume_from is None:
        present = store.resumable()
        if present:
            raise CheckpointError(
                f"{save_dir} holds the checkpoints of another run (the newest is {present[0].name}). Give "
                "--resume_from latest to go on with it, or another --save_dir to start a new one."
            )
        return None
    if is_address(resume_from):
        refuse_password(resume_from)
        target = _scratch() if given.values.get("dry_run") else save_dir
        fetched = fetch_checkpoint(resume_from, target, say)
        if fetched is None:
            say(f"{resume_from} has no checkpoint yet: starting from the beginning")
            return None
        there = split_address(resume_from)[0]
        if mirror is not None and there == mirror_address(mirror):
            adopt(target, there)
        resume_from = str(fetched)
    file = named_file(resume_from, save_dir)
    if file is not None:
        resume_from = str(_imported(file, given, shards, save_dir, say))
    point = locate(resume_from, save_dir)
    if point is None:
        say(f"{save_dir} has no checkpoint yet: starting from the beginning")
        return None
    for problem in point.problems:
        say(f"WARNING: damaged checkpoint: {problem}")
    if point.problems:
        lost = f"; {counted(point.steps_lost, 'optimizer step')} to do again" if point.steps_lost is not None else ""
        say(f"Falling back to {point.folder}{lost}")
    try:
        description = json.loads((point.folder / SETTINGS_FILE).read_text(encoding="utf-8"))
        config = ProteinModelConfig.from_pretrained(point.folder).to_dict()
        saved = SavedRun(point, description, config)
        Schedule.from_dict(description["schedule"])
        return saved
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{point.folder}: its settings cannot be read ({error})") from error


def _shards_of_a_new_run(accelerator: Accelerator, given: GivenOptions) -> int:
    accumulated = given.values.get("gradient_accumulation_steps") or accelerator.gradient_accumulation_steps
    return accelerator.num_processes * accumulated


def _imported(file: Path, given: GivenOptions, shards: int, save_dir: Path, say: Say) -> Path:
    """Make a single-file checkpoint a folder, which is then resumed like any other."""
    dry_run = given.values.get("dry_run")
    if dry_run:
        save_dir = _scratch()
    imported = import_checkpoint(file, given, shards, save_dir)
    for note in imported.notes:
        say(f"WARNING: {file.name}: {note}")
    say(f"Imported {file} as {imported.folder}{', for the dry run only' if dry_run else ''}")
    return imported.folder


def _scratch() -> Path:
    """A folder that is gone when the process ends."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def compare(saved: SavedRun, config: ProteinModelConfig, description: Mapping[str, Any], say: Say) -> None:
    """Refuse another architecture, and say what else differs.

    Parameters
    ----------
    config, description : of this launch

    Raises
    ------
    CheckpointError : the checkpoint holds another model, or neither it nor the launch says which data to train on
    """
    refused = compatibility.architecture_differences(saved.config, config.to_dict())
    if refused:
        raise CheckpointError(compatibility.refusal(str(saved.point.folder), refused))
    if "fingerprint" not in saved.description["data"] and description["settings"]["pdb_path"] is None:
        raise CheckpointError(f"{saved.point.folder} does not say which data it was trained on: give --pdb_path")
    for difference in compatibility.run_differences(saved.description, description):
        say(f"{'WARNING: changed' if difference.severity == 'warn' else 'Changed'} on resume: {difference}")


def planned_schedule(settings: Settings, steps_per_epoch: int, shards: int, saved: SavedRun | None) -> Schedule:
    """The learning rate of the whole run, as the options of this launch want it.

    Without a change it is that of the checkpoint. A new `--learning_rate` or `--warmup_epochs` replaces the old one,
    more `--epochs` go by `--extend_schedule`, and `--reset_schedule` starts it anew.
    """
    warmup_steps = round(settings.warmup_epochs * steps_per_epoch)
    total_steps = settings.epochs * steps_per_epoch
    peak = scaled_learning_rate(settings.learning_rate, settings.scale_learning_rate, shards)
    fresh = Schedule(peak, warmup_steps, total_steps)
    if saved is None:
        return fresh
    manifest, before = saved.point.manifest, saved.schedule
    same_epochs = saved.description["data"]["steps_per_epoch"] == steps_per_epoch
    step = manifest.step if same_epochs else manifest.epoch * steps_per_epoch
    if settings.reset_schedule:
        return restarted(fresh, step)
    rate_changed = any(
        saved.settings.get(name) != getattr(settings, name)
        for name in ("learning_rate", "scale_learning_rate", "warmup_epochs")
    )
    if not same_epochs:
        return fresh
    if rate_changed:
        begun = (before.start_step, before.start_rate) if not before.final_fraction else ()  # none if it was held
        before = Schedule(peak, warmup_steps, before.total_steps, *begun)
    if total_steps > before.total_steps:
        return extended(before, settings.extend_schedule, step, total_steps, warmup_steps)
    return extended(before, "stretch", step, total_steps, warmup_steps)
