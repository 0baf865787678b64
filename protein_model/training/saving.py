"""Writing checkpoints beside the training: a quick copy of the state, and a thread that writes it.

The training loop waits only while the state is copied, into buffers that are used again and again. The copy is then
written by `Accelerator.save_state` in a thread of its own, sealed and renamed as `checkpoints` has it. When to save is
left to `trainer`.
"""

from __future__ import annotations

import copy
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import safetensors
import torch
from accelerate import Accelerator
from torch import Tensor

from ..model.modeling import ProteinModel
from .averaging import WeightAverage
from .checkpoints import BEST_MODEL, STATE_FOLDER, CheckpointStore
from .layout import SETTINGS_FILE
from .model_folder import add_model_code

WRITE_ERRORS = (OSError, RuntimeError, safetensors.SafetensorError)  # a full disk, an unwritable folder, a lost mount


@dataclass(frozen=True)
class RunState:
    """Everything of a run that a checkpoint holds; tensors are those of the snapshot, or still the live ones.

    Attributes
    ----------
    model, optimizer : their state dictionaries
    scaler : state of the fp16 gradient scaler, None for other precisions
    registered : state dictionaries of the registered objects, by name, in order
    """

    model: dict[str, Any]
    optimizer: dict[str, Any]
    scaler: dict[str, Any] | None
    registered: dict[str, dict[str, Any]]


class Snapshots:
    """Copies of a run's state at one instant, in buffers that later copies use again."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str | int, ...], Tensor] = {}

    @torch.no_grad()
    def take(self, live: RunState) -> RunState:
        """Copy a state. What an earlier call gave is overwritten."""
        sources: list[Tensor] = []
        targets: list[Tensor] = []

        def copied(value: Any, path: tuple[str | int, ...]) -> Any:
            if isinstance(value, Tensor):
                buffer = self._buffers.get(path)
                if buffer is None or buffer.shape != value.shape or buffer.dtype != value.dtype:
                    buffer = self._buffers[path] = torch.empty_like(value, requires_grad=False)
                sources.append(value.detach())
                targets.append(buffer)
                return buffer
            if isinstance(value, dict):
                return {key: copied(entry, (*path, key)) for key, entry in value.items()}
            if isinstance(value, (list, tuple)):
                return type(value)(copied(entry, (*path, index)) for index, entry in enumerate(value))
            return value

        taken = RunState(
            copied(dict(live.model), ("model",)),
            copied(live.optimizer, ("optimizer",)),
            copied(live.scaler, ("scaler",)),
            copied(live.registered, ("registered",)),
        )
        if targets:
            torch._foreach_copy_(targets, sources)
        return taken


class _Frozen:
    """Stands for an object whose state was copied."""

    def __init__(self, state: Any):
        self._state = state

    def state_dict(self) -> Any:
        return self._state


def save_state(accelerator: Accelerator, state: RunState, folder: str) -> None:
    """`Accelerator.save_state` of a snapshot, while the accelerator itself goes on with the live objects."""
    state = _on_cpu(state)
    frozen = copy.copy(accelerator)
    frozen._models = [_Frozen(state.model)]
    frozen._optimizers = [_Frozen(state.optimizer)]
    frozen._schedulers = []
    frozen._dataloaders = []  # the cursor is the optimizer step, loaders have no state of their own
    frozen._custom_objects = [_Frozen(entry) for entry in state.registered.values()]
    frozen._save_model_state_pre_hook = OrderedDict()
    frozen.scaler = None if state.scaler is None else _Frozen(state.scaler)
    frozen.save_state(folder)


def _on_cpu(state: RunState) -> RunState:
    def moved(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.cpu()
        if isinstance(value, dict):
            return {key: moved(entry) for key, entry in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(moved(entry) for entry in value)
        return value

    return RunState(moved(state.model), moved(state.optimizer), moved(state.scaler), moved(state.registered))


class CheckpointWriter:
    """Writes checkpoints of one run; used by process 0 alone.

    Parameters
    ----------
    accelerator : whose `save_state` writes
    network : the unwrapped model; only its configuration and the names of its parameters are read
    average : of its weights, saved where `from_pretrained` looks for a model
    store : where checkpoints lie
    versions : of the packages, for the manifest
    say : prints a line
    """

    def __init__(
        self,
        accelerator: Accelerator,
        network: ProteinModel,
        average: WeightAverage,
        store: CheckpointStore,
        versions: dict[str, str],
        say: Callable[[str], None],
    ):
        self._accelerator = accelerator
        self._network = network
        self._average = average
        self._store = store
        self._versions = versions
        self._say = say
        self._snapshots = Snapshots()
        self._thread: threading.Thread | None = None
        self._crash: BaseException | None = None
        self.last_failure: str | None = None
        self.stall_seconds = 0.0

    def save(
        self,
        names: Sequence[str],
        live: RunState,
        step: int,
        epoch: int,
        description: dict[str, Any],
        afterwards: Callable[[], None],
    ) -> None:
        """Copy the state and write it under each of `names`, in the background.

        Parameters
        ----------
        live : of the run, at an optimizer-step boundary
        step, epoch : done so far
        description : for the settings file
        afterwards : called in the thread once the checkpoints are committed
        """
        started = time.perf_counter()
        self.wait()
        state = self._snapshots.take(live)

        def write() -> None:
            self.last_failure = None
            for name in names:
                self._write(name, state, step, epoch, description)
            if self.last_failure is None:
                afterwards()

        self.in_background(write)
        self.stall_seconds += time.perf_counter() - started

    def in_background(self, work: Callable[[], None]) -> None:
        """Run something after what is being written, without the training waiting for it."""
        self.wait()

        def run() -> None:
            try:
                work()
            except BaseException as error:  # not lost: the next call that waits raises it in the main thread
                self._crash = error

        self._thread = threading.Thread(target=run, name="checkpoint writer")
        self._thread.start()

    def wait(self) -> None:
        """Until nothing is being written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._crash is not None:
            crash, self._crash = self._crash, None
            raise crash

    def _write(self, name: str, state: RunState, step: int, epoch: int, description: dict[str, Any]) -> None:
        temporary = self._store.temporary(name)
        try:
            self._store.begin(name)
            save_state(self._accelerator, state, str(temporary / STATE_FOLDER))
            # Nothing random depends on generator states here, and their files differ from process to process.
            for path in (temporary / STATE_FOLDER).glob("random_states_*.pkl"):
                path.unlink()
            average = self._average.named_weights(state.registered["weight_average"], state.model)
            self._network.save_pretrained(temporary, state_dict=average)
            if name == BEST_MODEL:  # it loads without this package, as what is published of it
                add_model_code(temporary)
            (temporary / SETTINGS_FILE).write_text(json.dumps(description, indent=1), encoding="utf-8")
            final = self._store.commit(temporary, step, epoch, list(state.registered), self._versions)
            self._say(f"saved {final}")
        except WRITE_ERRORS as error:
            self._store.abandon(temporary)
            self.last_failure = f"{self._store.folder / name} could not be saved ({error})"
            self._say(
                f"WARNING: {self.last_failure}; earlier checkpoints are untouched, and training goes on to the next "
                "save"
            )
