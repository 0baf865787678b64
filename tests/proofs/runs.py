"""Small runs whose end can be told exactly: their settings, and the comparison of how two of them ended."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

STRUCTURES = 20
# Results on another number of processes: gradients are summed in another order; see `Difference` for recoveries.
ROUNDING, ROUNDING_OF_RECOVERY = 1e-4, 0.01
# Four micro-batches per optimizer step, so that 1, 2 and 4 processes can share the work of every run.
SHARDS = 4
COMMON: dict[str, Any] = {
    "hidden_dim": 16,
    "num_encoder_layers": 1,
    "num_decoder_layers": 1,
    "num_neighbors": 8,
    "use_discrete_diffusion": True,
    "num_diffusion_steps": 10,
    "epochs": 2,
    "batch_size": 1,
    "batch_residues": 300,
    "warmup_epochs": 1.0,
    "validation_fraction": 0.1,
    "num_example_designs": 0,
    "learning_rate": 5e-3,
}
# Together they turn on and off everything that has a state or draws random numbers.
SETTINGS: dict[str, dict[str, Any]] = {
    "dropout and noise": {"dropout": 0.3, "backbone_noise": 0.1, "ema_decay": 0.9, "save_every_steps": 1},
    "loader workers": {"num_workers": 2, "backbone_noise": 0.05, "save_every_steps": 1, "keep_last": 2},
    "two steps": {"save_every_steps": 2, "diffusion_kernel": "uniform", "keep_last": 3, "keep_every": 2},
    "three steps": {"save_every_steps": 3, "num_workers": 2, "dropout": 0.0, "ema_decay": 0.0},
    "one pass": {"use_discrete_diffusion": False, "label_smoothing": 0.1, "save_every_steps": 1, "weight_decay": 0.3},
    "cropping": {"batch_residues": 60, "diffusion_kernel": "substitution", "save_every_steps": 1, "seed": 5},
    "patience": {"early_stopping_patience": 9, "early_stopping_min_delta": 0.01, "save_every_steps": 2, "seed": 6},
}
# Nothing is saved within an epoch but what a signal asks for; validation takes a good part of the time.
SIGNAL_SETTINGS: dict[str, dict[str, Any]] = {
    "signals": {"epochs": 5, "dropout": 0.3, "backbone_noise": 0.1, "validation_fraction": 0.5, "save_every": 2},
    "signals, workers": {"epochs": 5, "num_workers": 2, "validation_fraction": 0.5, "save_every": 2, "seed": 1},
}


@dataclass(frozen=True)
class TinyRun:
    """A run that takes seconds.

    Attributes
    ----------
    settings : a name in `SETTINGS` or `SIGNAL_SETTINGS`
    deterministic : with `--deterministic`, which makes runs on other numbers of processes equal to the last bit
    structures : folder of structure files
    cache_dir, save_dir : as the options
    """

    settings: str
    deterministic: bool
    structures: Path
    cache_dir: Path
    save_dir: Path

    def command_line(self, processes: int) -> list[str]:
        """Options of a launch, all of them, so that a start from nothing and a resume are the same command."""
        options = {
            **COMMON,
            **{**SETTINGS, **SIGNAL_SETTINGS}[self.settings],
            **({"deterministic": True} if self.deterministic else {}),
            "gradient_accumulation_steps": SHARDS // processes,
            "pdb_path": self.structures,
            "cache_dir": self.cache_dir,
            "save_dir": self.save_dir,
            "resume_from": "latest",
        }
        return [part for name, value in options.items() for part in (f"--{name}", str(value))]


# ---------------------------------------------------------------------- how a run ended

# What depends on the clock, on the launch or on where the run has been interrupted, not on what was computed.
OF_THE_LAUNCH = re.compile(r"seconds|residues_per_second|resumes|.*version.*|_commit_hash")


def outcome(save_dir: Path) -> dict[str, Any]:
    """Everything that a finished run left, by name: tensors and plain values of history, last checkpoint, best model.

    Files are read by their kind, not by their role, so that whatever a checkpoint holds is compared.
    """
    values: dict[str, Any] = {}
    epochs = [int(path.name.rpartition("_")[2]) for path in save_dir.glob("checkpoint_epoch_*")]
    for path in (
        save_dir / "history.json",
        save_dir / f"checkpoint_epoch_{max(epochs, default=0)}",
        save_dir / "best_model",
    ):
        if not path.exists():
            values[path.name] = "missing"
        for file in sorted(path.rglob("*")) if path.is_dir() else [path] * path.exists():
            if file.is_file() and file.name not in ("manifest.json", "settings.json"):
                values |= _flat(_content(file), file.relative_to(save_dir).as_posix())
    return values


def _content(file: Path) -> Any:
    if file.suffix == ".json":
        return json.loads(file.read_text())
    if file.suffix == ".safetensors":
        return load_file(file)
    if file.suffix in (".bin", ".pkl", ".pt"):
        return torch.load(file, weights_only=True)
    return file.read_bytes()


def _flat(value: Any, name: str) -> dict[str, Any]:
    if isinstance(value, dict):
        items: Iterable[tuple[Any, Any]] = ((k, v) for k, v in value.items() if not OF_THE_LAUNCH.fullmatch(str(k)))
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    else:
        return {name: value}
    return {key: leaf for part, below in items for key, leaf in _flat(below, f"{name}/{part}").items()}


@dataclass
class Difference:
    """How far two outcomes are apart.

    Attributes
    ----------
    places : where they differ at all, bitwise
    largest, where : difference of two numbers, relative to the larger one of 1 and their size
    recovery : largest difference of two recoveries. They count the residues whose most probable type is right. Where
        the best two are as good as equal, as in the first steps of a run, which all types begin with equal
        probabilities, rounding decides, so that counts may differ where everything else agrees.
    missing : what only one of them has
    """

    places: list[str] = field(default_factory=list)
    largest: float = 0.0
    where: str = ""
    recovery: float = 0.0
    missing: list[str] = field(default_factory=list)

    def beyond_rounding(self) -> list[str]:
        """What cannot come from another order of summation, in words."""
        problems = []
        if self.largest > ROUNDING:
            problems.append(f"differs by {self.largest:.1e}: {self.where}")
        if self.recovery > ROUNDING_OF_RECOVERY:
            problems.append(f"recovery differs by {self.recovery:.1e}")
        return problems

    def _add(self, name: str, apart: float) -> None:
        self.places.append(name)
        if name.endswith("recovery"):
            self.recovery = max(self.recovery, apart)
        elif apart > self.largest:
            self.largest, self.where = apart, name


def difference(expected: dict[str, Any], found: dict[str, Any]) -> Difference:
    """Compare two outcomes bit by bit."""
    result = Difference()
    for name in sorted(expected.keys() | found.keys()):
        one, other = expected.get(name), found.get(name)
        if type(one) is not type(other):
            result.missing.append(name)
        elif isinstance(one, torch.Tensor):
            if one.shape != other.shape or one.dtype != other.dtype:
                result.missing.append(name)
            elif not torch.equal(one, other):
                apart = (one.double() - other.double()).abs() / one.double().abs().clamp(min=1)
                result._add(name, float(apart.max()))
        elif one != other:
            result._add(name, abs(one - other) / max(1.0, abs(one)) if isinstance(one, float) else float("inf"))
    return result


# ---------------------------------------------------------------------- what was computed on the way


@dataclass(frozen=True)
class TracedStep:
    """One optimizer step as one process saw it; see `tracing`."""

    step: int
    rank: int
    processes: int
    inputs: list[str]
    gradient: str
    time: float
    rate: float


def traced_steps(trace: Path) -> Iterator[TracedStep]:
    """Steps of all processes of a launch."""
    for path in sorted(trace.parent.glob(f"{trace.name}.*")):
        for line in path.read_text().splitlines():
            yield TracedStep(**json.loads(line))


class Course:
    """What the steps of an uninterrupted run read and gave, to compare others with.

    Parameters
    ----------
    steps : of one launch that was not interrupted
    """

    def __init__(self, steps: Iterable[TracedStep]):
        self.inputs: dict[int, list[str]] = {}
        self.gradients: dict[int, str] = {}
        self.rates: dict[int, float] = {}
        for step in steps:
            self.inputs[step.step] = sorted([*self.inputs.get(step.step, []), *step.inputs])
            self.gradients[step.step] = step.gradient
            self.rates[step.step] = step.rate

    def deviations(self, steps: Iterable[TracedStep], bitwise: bool) -> list[str]:
        """Where a launch, perhaps killed, did anything else.

        Parameters
        ----------
        bitwise : gradients have to be equal as well; otherwise order, noise, corruption and learning rate only
        """
        found: list[str] = []
        together: dict[int, list[TracedStep]] = {}
        for step in steps:
            together.setdefault(step.step, []).append(step)
        for number, parts in together.items():
            inputs = sorted(digest for part in parts for digest in part.inputs)
            complete = len(parts) == parts[0].processes
            expected = self.inputs.get(number, [])
            if (complete and inputs != expected) or not set(inputs) <= set(expected):
                found.append(f"step {number} on {parts[0].processes} processes read other samples")
            if {part.rate for part in parts} != {self.rates.get(number)}:
                found.append(f"step {number} had another learning rate")
            if bitwise and {part.gradient for part in parts} != {self.gradients.get(number)}:
                found.append(f"step {number} on {parts[0].processes} processes gave another gradient")
        return found
