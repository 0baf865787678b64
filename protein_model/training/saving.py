"""Writing checkpoints beside the training: a quick copy of the state, and a thread that writes it.

The training loop waits only while the state is copied, into buffers that are used again and again. The copy is then
written by `Accelerator.save_state` in a thread of its own, sealed and renamed as `checkpoints` has it. Where every
process has a slice of the state only, the copy is of the whole, and on loading each takes its slice again: files do not
depend on the launch. When to save is left to `trainer`.
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
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.optim import Optimizer

from ..model.configuration import ProteinModelConfig
from .averaging import WeightAverage
from .checkpoints import BEST_MODEL, STATE_FOLDER, CheckpointStore
from .content import empty_model
from .layout import SETTINGS_FILE
from .model_folder import add_model_code
from .slices import is_sliced, sliced_like, whole

Place = tuple[str | int, ...]  # keys on the way to a tensor in a state
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

    def changed(self, change: Callable[[Tensor, Place], Tensor]) -> RunState:
        """The same with other tensors: `change` is called with each of them, and where in the state it stands."""

        def below(value: Any, place: Place) -> Any:
            if isinstance(value, Tensor):
                return change(value, place)
            if isinstance(value, dict):
                return {key: below(entry, (*place, key)) for key, entry in value.items()}
            if isinstance(value, (list, tuple)):
                return type(value)(below(entry, (*place, index)) for index, entry in enumerate(value))
            return value

        return RunState(
            below(dict(self.model), ("model",)),
            below(self.optimizer, ("optimizer",)),
            below(self.scaler, ("scaler",)),
            below(self.registered, ("registered",)),
        )


class Snapshots:
    """Copies of a run's state at one instant, in buffers that later copies use again."""

    def __init__(self) -> None:
        self._buffers: dict[Place, Tensor] = {}

    @torch.no_grad()
    def take(self, live: RunState) -> RunState:
        """Copy a state. What an earlier call gave is overwritten.

        Of a tensor of which this process has a slice, the whole is taken; the others `help_snapshot` meanwhile.
        """
        sources: list[Tensor] = []
        targets: list[Tensor] = []

        def copied(tensor: Tensor, place: Place) -> Tensor:
            sliced = is_sliced(tensor)
            tensor = whole(tensor)
            buffer = self._buffers.get(place)
            if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
                # A device that holds slices may have no room for all that they are slices of.
                device = "cpu" if sliced else tensor.device
                buffer = self._buffers[place] = torch.empty_like(tensor, device=device, requires_grad=False)
            if sliced:
                buffer.copy_(tensor)
            else:
                sources.append(tensor.detach())
                targets.append(buffer)
            return buffer

        taken = live.changed(copied)
        if targets:
            torch._foreach_copy_(targets, sources)
        return taken


@torch.no_grad()
def help_snapshot(live: RunState) -> None:
    """Give the slices of this process to the one that takes a snapshot."""

    def given(tensor: Tensor, place: Place) -> Tensor:
        whole(tensor)
        return tensor

    live.changed(given)


class _Frozen:
    """Stands for an object whose state was copied."""

    def __init__(self, state: Any):
        self._state = state

    def state_dict(self) -> Any:
        return self._state


class _SlicedModel:
    """Stands for a model; takes whole weights and keeps this process's slices of them."""

    def __init__(self, network: nn.Module):
        self._network = network

    def state_dict(self) -> dict[str, Tensor]:
        return {
            name: torch.empty(value.shape, dtype=value.dtype, device="meta")
            for name, value in self._network.state_dict().items()
        }

    def load_state_dict(self, state: dict[str, Tensor], strict: bool = True) -> Any:
        own = self._network.state_dict()
        cut = {name: sliced_like(value, own.get(name, value)) for name, value in state.items()}
        return self._network.load_state_dict(cut, strict=strict)


class _SlicedOptimizer:
    """Stands for an optimizer; takes a state of whole tensors and keeps this process's slices of them."""

    def __init__(self, optimizer: Optimizer):
        self._optimizer = optimizer

    def load_state_dict(self, state: dict[str, Any]) -> None:
        numbers = [number for group in state["param_groups"] for number in group["params"]]
        parameters = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        entries = dict(state["state"])
        for number, parameter in zip(numbers, parameters, strict=True):
            if number in entries:
                entries[number] = {
                    # The number of steps is not cut.
                    name: sliced_like(value, parameter) if value.shape == parameter.shape else value
                    for name, value in entries[number].items()
                }
        self._optimizer.load_state_dict({**state, "state": entries})


class _AloneState:
    """State of an accelerator as if there were one process with the whole model; everything else is the real one."""

    distributed_type = DistributedType.NO
    is_fsdp2 = False

    def __init__(self, state: Any):
        self._state = state

    def __getattr__(self, name: str) -> Any:
        return getattr(self._state, name)


def _alone(accelerator: Accelerator) -> Accelerator:
    """The accelerator as it would be with one process: its files are the same then, whatever the launch."""
    alone = copy.copy(accelerator)
    alone.state = _AloneState(accelerator.state)
    return alone


def save_state(accelerator: Accelerator, state: RunState, folder: str) -> None:
    """`Accelerator.save_state` of a snapshot, while the accelerator itself goes on with the live objects."""
    state = state.changed(lambda tensor, place: tensor.cpu())
    frozen = _alone(accelerator)
    frozen._models = [_Frozen(state.model)]
    frozen._optimizers = [_Frozen(state.optimizer)]
    frozen._schedulers = []
    frozen._dataloaders = []  # the cursor is the optimizer step, loaders have no state of their own
    frozen._custom_objects = [_Frozen(entry) for entry in state.registered.values()]
    frozen._save_model_state_pre_hook = OrderedDict()
    frozen.scaler = None if state.scaler is None else _Frozen(state.scaler)
    frozen.save_state(folder)


def load_state(accelerator: Accelerator, network: nn.Module, folder: str) -> None:
    """`Accelerator.load_state` into the live objects, of which each process may hold slices.

    Parameters
    ----------
    network : the unwrapped model, so that names of weights do not depend on the launch
    """
    alone = _alone(accelerator)
    alone._models = [_SlicedModel(network)]
    alone._optimizers = [_SlicedOptimizer(optimizer) for optimizer in accelerator._optimizers]
    alone.load_state(folder)


class CheckpointWriter:
    """Writes checkpoints of one run; used by process 0 alone.

    Parameters
    ----------
    accelerator : whose `save_state` writes
    config : of the model
    average : of its weights, saved where `from_pretrained` looks for a model
    store : where checkpoints lie
    versions : of the packages, for the manifest
    say : prints a line
    """

    def __init__(
        self,
        accelerator: Accelerator,
        config: ProteinModelConfig,
        average: WeightAverage,
        store: CheckpointStore,
        versions: dict[str, str],
        say: Callable[[str], None],
    ):
        self._accelerator = accelerator
        self._model = empty_model(config)  # not the live one, which may consist of slices and is busy
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
        live : of the run, at an optimizer-step boundary; the other processes `help_snapshot`
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
            self._model.save_pretrained(temporary, state_dict=average)
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
