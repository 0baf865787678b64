"""Points of a run for TensorBoard, Trackio or Weights & Biases, through the trackers of Accelerate.

A resumed run goes on in the same place without doubled points: steps that are done again replace their points in
TensorBoard, and are not logged once more elsewhere. A tracker that fails is reported and left alone; training goes on.
"""

from __future__ import annotations

import importlib.util
import json
import resource
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.tracking import filter_trackers

from ..data.storage import write_atomically
from ..errors import UserError

PROJECT = "protein_model"
TENSORBOARD_FOLDER = "tensorboard"
RECORD_FILE = "tracking.json"  # which run of a tracker this is, and how far it was logged
_GIB = 2.0**30
_ADVICE = {
    "tensorboard": "pip install tensorboard",
    "trackio": "pip install trackio",
    "wandb": "pip install wandb",
}


class TrackerError(UserError):
    """A tracker that was asked for cannot be used."""


def require_tracker(name: str) -> None:
    """Make sure that a tracker can be used, before any time is spent on anything else.

    Raises
    ------
    TrackerError : its package is not installed; the message says what to do
    """
    if name == "none":
        return
    if importlib.util.find_spec(name) is None:
        raise TrackerError(f"--report_to {name}: the package {name} is not installed; {_ADVICE[name]}")


class Tracking:
    """What a run tells a tracker. All calls are cheap, and do nothing without a tracker or off the main process.

    Parameters
    ----------
    accelerator : of the run
    name : "none", "tensorboard", "trackio" or "wandb"
    every : optimizer steps between two points
    save_dir : of the run; TensorBoard files lie in it
    say : prints a line
    """

    def __init__(self, accelerator: Accelerator, name: str, every: int, save_dir: Path, say: Callable[[str], None]):
        require_tracker(name)
        self._accelerator = accelerator
        self._name = name
        self._every = every
        self._save_dir = save_dir
        self._say = say
        self._active = name != "none" and accelerator.is_main_process
        self._replaces = name == "tensorboard"
        self._logged = -1  # highest step that the other trackers have a point of
        self._run = ""
        self._settings: Mapping[str, Any] = {}
        self._residues = 0.0
        self._since = time.monotonic()

    def start(self, settings: Mapping[str, Any], step: int, epoch_is_pending: bool, went_back: bool) -> None:
        """Begin, or go on with, the tracker's run.

        Parameters
        ----------
        settings : options of the run
        step : optimizer steps done
        epoch_is_pending : the last of them ended an epoch that is not validated yet
        went_back : later checkpoints were given up, so that what follows is another run than what was logged

        Raises
        ------
        TrackerError : a new run cannot begin, because nobody is logged in, for example; a run that goes on is not kept
            from it by its tracker
        """
        if not self._active:
            return
        self._settings = settings
        self._read_record()
        if went_back or not self._run:
            self._run, self._logged = f"{self._save_dir.resolve().name}-{uuid.uuid4().hex[:6]}", -1
        if step:
            self._guarded(lambda: self._open(step, epoch_is_pending))
        else:
            try:
                self._open(step, epoch_is_pending)
            except Exception as error:  # whatever its package raises is named, before time is spent on training
                raise TrackerError(f"--report_to {self._name}: {type(error).__name__}: {error}") from error
        self._since = time.monotonic()

    def rewind(self, step: int) -> None:
        """Training went back to an earlier step by itself; what is logged after it is out of date."""
        if self._active and self._replaces:
            self._guarded(lambda: self._reopen(step))

    def step(
        self, step: int, ends_epoch: bool, loss: float, learning_rate: float, gradient_norm: float, residues: float
    ) -> None:
        """Log an optimizer step, if it is one of those that are logged.

        Parameters
        ----------
        step : number of the step, from 1
        ends_epoch : the epoch's own point will come instead
        loss : nats per scored residue, of this step's batch
        gradient_norm : before clipping
        residues : in this step's batch, on all processes
        """
        if not self._active:
            return
        self._residues += residues
        if ends_epoch or step % self._every:
            return
        now = time.monotonic()
        values = {
            "train/loss": loss,
            "train/learning_rate": learning_rate,
            "train/gradient_norm": gradient_norm,
            "train/residues_per_second": self._residues / max(now - self._since, 1e-9),
            "train/memory_gib": _peak_memory() / _GIB,
        }
        self._residues, self._since = 0.0, now
        self._log(values, step)

    def epoch(self, entry: Mapping[str, float], designs: str) -> None:
        """Log a finished epoch.

        Parameters
        ----------
        entry : of the loss history
        designs : some native and predicted sequences, as text; may be empty
        """
        if not self._active:
            return
        values: dict[str, Any] = {
            f"epoch/{name}": float(value) for name, value in entry.items() if name not in ("epoch", "step")
        }
        values["epoch/number"] = float(entry["epoch"])
        if designs:
            values["designs"] = _as_code(designs)
        self._log(values, int(entry["step"]))
        self._residues, self._since = 0.0, time.monotonic()

    def close(self) -> None:
        """Write out everything and end the tracker's run."""
        if self._active:
            self._guarded(self._finish)

    def _open(self, step: int, epoch_is_pending: bool) -> None:
        if self._replaces:
            # Points of later steps are those of a process that died after its last checkpoint.
            options: dict[str, Any] = {"purge_step": step + (0 if epoch_is_pending else 1)}
            project = TENSORBOARD_FOLDER
        elif self._name == "trackio":
            options, project = {"name": self._run, "resume": "allow", "embed": False}, PROJECT
        else:
            options, project = {"id": self._run, "name": self._run, "resume": "allow"}, PROJECT
            options["dir"] = str(self._save_dir)
        self._accelerator.log_with = filter_trackers([self._name], str(self._save_dir))
        self._accelerator.project_configuration.set_directories(str(self._save_dir))
        config = {name: value for name, value in self._settings.items() if value is not None}
        # TensorBoard's way to keep settings makes a new folder at every start.
        self._accelerator.init_trackers(project, None if self._replaces else config, {self._name: options})
        if self._replaces and step == 0:
            self._accelerator.log({"settings": _as_code(json.dumps(config, indent=1))}, step=0)
        if not self._replaces:
            self._write_record()

    def _reopen(self, step: int) -> None:
        self._finish()
        self._open(step, epoch_is_pending=False)

    def _finish(self) -> None:
        for tracker in self._accelerator.trackers:
            tracker.finish()
        self._accelerator.trackers.clear()

    def _log(self, values: Mapping[str, Any], step: int) -> None:
        if not self._replaces:
            if step <= self._logged:
                return
            # Before the point itself: a process that dies in between leaves a gap, not a doubled point.
            self._logged = step
            self._guarded(self._write_record)
        self._guarded(lambda: self._accelerator.log(dict(values), step=step))

    def _guarded(self, action: Callable[[], None]) -> None:
        if not self._active:
            return
        try:
            action()
        except Exception as error:  # whatever a tracker's package raises, the training is worth more
            self._active = False
            self._say(
                f"WARNING: --report_to {self._name}: {type(error).__name__}: {error}. Nothing more is logged there."
            )

    def _read_record(self) -> None:
        path = self._save_dir / RECORD_FILE
        if path.is_file():
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["tracker"] == self._name:
                self._run, self._logged = record["run"], record["logged"]

    def _write_record(self) -> None:
        document = {"tracker": self._name, "run": self._run, "logged": self._logged}
        write_atomically(self._save_dir / RECORD_FILE, json.dumps(document))


def _peak_memory() -> float:
    """Bytes: of the GPU where there is one, else of this process."""
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1.0 if sys.platform == "darwin" else 1024.0)


def _as_code(text: str) -> str:
    """Markdown that keeps lines and columns as they are."""
    return "\n".join(f"    {line}" for line in text.splitlines())
