"""The options of a training run: where they come from, what they mean, and which combinations are refused.

An option is taken from the command line, else from the file named by `--config`, else, where a run is resumed, from
the settings saved with its checkpoint, else from the defaults below.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from transformers import HfArgumentParser

from ..data.addresses import is_address
from ..errors import UserError

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
DEMO_CONFIG = EXAMPLES / "demo.yaml"
WIDEST_FUSED = 128  # two matrices of this width, and what goes through them, is what a multiprocessor can hold


class SettingsError(UserError, ValueError):
    """An option is unknown, out of its range, or does not go with another one."""


def _option(default: Any, text: str, **metadata: Any) -> Any:
    return field(default=default, metadata={"help": text, **metadata})


@dataclass
class Settings:
    """All options of `train_accelerate.py`; every field is one `--option`."""

    # Data
    pdb_path: str | None = _option(
        None,
        "Training structures: a folder of PDB / mmCIF files (searched recursively), one file, a text file of paths, a "
        "chain_set.jsonl, or a finished cache, also at an address such as s3://bucket/cache or "
        "hf://datasets/organisation/name. Without it, the embedded example structures.",
    )
    cache_dir: str = _option(
        "cache",
        "Folder for the data sets built from structure files, may be the same as --pdb_path, and for copies of those "
        "at an address.",
    )
    unit: Literal["chain", "complex"] = _option(
        "chain", "Train on single chains, or on all protein chains of a file together."
    )
    min_length: int = _option(10, "Shortest chain or complex to use, in residues with a complete backbone.")
    use_predefined_split: bool = _option(
        False, "Take the split from chain_set_splits.json or from train/ validation/ test/ subfolders."
    )
    split_file: str | None = _option(None, "chain_set_splits.json, where it is not in the data folder.")
    cluster_file: str | None = _option(
        None, "Sequence clusters as mmseqs2 writes them (representative, member), for the split by cluster."
    )
    validation_fraction: float = _option(0.1, "Share of the structures to validate on, where the split is by cluster.")
    shuffle_within_parts: bool = _option(
        False,
        "Deal the data to as many parts as a global batch has micro-batches, and draw each micro-batch from its own: "
        "every machine reads, and fetches from an address, its parts only.",
    )
    num_workers: int = _option(0, "Loader processes per training process; 0 loads in the training process itself.")
    # Model
    preset: Literal["tiny", "base", "large"] | None = _option(
        None, "Size of the model: sets width, layers and neighbours, where these are not given themselves [base]."
    )
    hidden_dim: int = _option(128, "Width of residue and edge embeddings.")
    num_encoder_layers: int = _option(5, "Message-passing layers that read the backbone.")
    num_decoder_layers: int = _option(1, "Message-passing layers that denoise the sequence; one makes sampling fast.")
    num_neighbors: int = _option(30, "Nearest residues that send messages to each residue, itself included.")
    dropout: float = _option(0.1, "Dropout rate of every layer, 0 to 1.")
    use_discrete_diffusion: bool = _option(
        False, "Train a denoiser at all noise levels; without it, one that predicts all residues in one pass."
    )
    num_diffusion_steps: int = _option(100, "Noise levels of the diffusion in training (T).")
    diffusion_kernel: Literal["absorbing", "uniform", "substitution"] = _option(
        "absorbing", "How residues are corrupted: masked, replaced evenly, or replaced as BLOSUM62 has it."
    )
    # Optimization
    epochs: int = _option(100, "Epochs of the whole run, those before a resume included.")
    batch_size: int | None = _option(None, "Structures per process per micro-batch; with --batch_residues, at most.")
    batch_residues: int | None = _option(
        None, "Residues per process per micro-batch, at most; 6,000 where --batch_size is not given either."
    )
    gradient_accumulation_steps: int | None = _option(
        None, "Micro-batches per process per optimizer step; on resume it follows from the number of processes. [1]"
    )
    learning_rate: float = _option(1e-3, "Peak learning rate.")
    scale_learning_rate: Literal["none", "sqrt", "linear"] = _option(
        "none",
        "Multiply --learning_rate by the number of micro-batches in an optimizer step (the processes that the run "
        "begins with, times gradient accumulation), or by its square root.",
    )
    warmup_epochs: float = _option(1.0, "Epochs, or a part of one, until the peak learning rate.")
    weight_decay: float = _option(0.01, "Decoupled weight decay of AdamW, on weight matrices only.")
    max_grad_norm: float = _option(1.0, "Gradients are scaled down to this norm at most.")
    label_smoothing: float = _option(0.0, "Share of the target probability spread evenly over all residue types.")
    backbone_noise: float = _option(0.0, "Standard deviation of Gaussian noise on training coordinates, angstrom.")
    fully_masked_fraction: float = _option(0.1, "Share of training structures whose whole sequence is corrupted.")
    ema_decay: float = _option(0.999, "Decay per step of the weight average that is validated and saved; 0 for none.")
    early_stopping_patience: int | None = _option(None, "Stop after this many epochs without improvement.")
    early_stopping_min_delta: float = _option(
        0.0, "Smallest drop of the validation loss that counts, nats per residue."
    )
    seed: int = _option(0, "Everything random in a run follows from it.")
    mixed_precision: Literal["no", "fp16", "bf16"] | None = _option(
        None, "Precision of the network; by default that of the accelerate configuration. Geometry is always float32."
    )
    gradient_checkpointing: bool = _option(
        False,
        "Keep only what goes into each encoder layer, and compute the rest again in the backward pass: a third of the "
        "memory, at the price of time. Results are the same.",
    )
    compile: bool = _option(
        False,
        "Compile the network when training begins (torch.compile), which takes a minute or so; batches are filled up "
        "to --batch_residues. Needs a C++ compiler, and Triton on a GPU.",
    )
    fused_layers: bool = _option(
        False,
        "Compute the edges of the encoder layers by kernels of their own, for less memory and memory traffic. Needs a "
        "CUDA GPU, Triton and 16 bits. Checked in Triton's interpreter, but not yet run or timed on a GPU.",
    )
    timeout_minutes: float = _option(30.0, "How long a process waits for the others before the run gives up.")
    # Checkpoints and output
    resume_from: str | None = _option(
        None,
        "Checkpoint folder, best_model, latest, or a save folder to go on from its newest good checkpoint; also the "
        "address of a checkpoint or of a folder of them, as --mirror_checkpoints_to makes it.",
        aliases=["--resume"],
    )
    start_from: str | None = _option(
        None,
        "Fine-tuning: a new run begins with the weights of this model, one that ships with the package (design, "
        "recovery), a folder such as run/best_model or a repository on the Hub, and has its architecture.",
    )
    save_dir: str | None = _option(
        None,
        "Folder for checkpoints, best model, history and loss curve; by default the folder that is resumed from, or "
        "checkpoints.",
    )
    mirror_checkpoints_to: str | None = _option(
        None,
        "Address or folder that gets a copy of every checkpoint in the background, such as s3://bucket/run; with "
        "--resume_from latest and nothing in --save_dir, the run goes on from there.",
    )
    save_every: int = _option(1, "Epochs between checkpoints.")
    save_every_steps: int | None = _option(
        None, "Optimizer steps between checkpoints within an epoch, of which the two newest stay."
    )
    keep_last: int | None = _option(None, "Keep only this many of the newest checkpoints (2 or more); default all.")
    keep_every: int | None = _option(None, "With --keep_last, keep every checkpoint whose epoch is a multiple of this.")
    extend_schedule: Literal["stretch", "hold", "rewarm"] = _option(
        "stretch",
        "Learning rate where --epochs grows on resume: the curve as if the new total had been known, the present rate "
        "until the end, or a new warm-up from it.",
    )
    reset_optimizer: bool = _option(False, "On resume, start with a new optimizer state, for fine-tuning.")
    reset_schedule: bool = _option(
        False, "On resume, start warm-up and cosine anew, from here to the end of --epochs, for fine-tuning."
    )
    dry_run: bool = _option(False, "Tell what would be trained, or what a resume would do, and stop.")
    on_divergence: Literal["skip", "rollback", "stop"] = _option(
        "skip",
        "What to do about a loss or gradient that is not finite: leave the step out, go back to the last good "
        "checkpoint and leave it out there, or stop.",
    )
    max_rollbacks: int = _option(3, "Rollbacks in a run, at most; one more stops it.")
    deterministic: bool = _option(
        False,
        "The same result bit for bit on any number of processes, on a GPU at every repetition; slower, not with FSDP2.",
    )
    num_example_designs: int = _option(
        3, "Validation structures to design sequences for when training ends; 0 for none."
    )
    # Watching
    report_to: Literal["none", "tensorboard", "trackio", "wandb"] = _option(
        "none", "Where points of the run go, beside train.log, history.json and history.csv in the save folder."
    )
    log_every_steps: int = _option(10, "Optimizer steps between two points for --report_to.")
    # Publishing
    push_to_hub: bool = _option(
        False, "Push the best model to the Hugging Face Hub whenever it improved, in the background, and at the end."
    )
    hub_model_id: str | None = _option(None, "Repository on the Hub, organisation/name; it is made if there is none.")
    hub_private: bool = _option(False, "Make a new repository private, and refuse one that is public.")
    hub_every_minutes: float = _option(30.0, "Shortest time between two pushes; the one at the end comes anyway.")
    hub_license: str = _option("mit", "Licence of the published weights, as the Hub names it, such as cc-by-4.0.")
    config: str | None = _option(None, "YAML or JSON file with any of these options; the command line wins.")

    def __post_init__(self) -> None:
        _check_ranges(self)
        if self.batch_size is None and self.batch_residues is None:
            self.batch_residues = 6000
        if self.split_file and not self.use_predefined_split:
            raise SettingsError("--split_file goes with --use_predefined_split")
        if self.cluster_file and self.use_predefined_split:
            raise SettingsError("--cluster_file and --use_predefined_split exclude each other: give one of them")
        if self.keep_last is not None and self.keep_last < 2:
            raise SettingsError(
                f"--keep_last must be at least 2, but is {self.keep_last}: damage to a single one loses the run"
            )
        if self.keep_every is not None and self.keep_last is None:
            raise SettingsError("--keep_every goes with --keep_last; without it all checkpoints are kept")
        if self.compile and self.batch_residues is None:
            raise SettingsError(
                "--compile needs batches of one size: give --batch_residues too (--batch_size stays the most structures"
                " of a batch)"
            )
        if self.compile and self.deterministic:
            raise SettingsError(
                "--compile and --deterministic exclude each other: compilers round in ways of their own, also from "
                "process to process; give one of them"
            )
        if self.fused_layers:
            self._check_fusion()
        for name in ("reset_optimizer", "reset_schedule"):
            if getattr(self, name) and self.resume_from is None:
                raise SettingsError(f"--{name} goes with --resume_from; a new run has nothing to reset")
        if self.early_stopping_min_delta and self.early_stopping_patience is None:
            raise SettingsError("--early_stopping_min_delta goes with --early_stopping_patience")
        if self.push_to_hub and self.hub_model_id is None:
            raise SettingsError("--push_to_hub needs --hub_model_id organisation/name")
        if self.hub_model_id is not None and not self.push_to_hub:
            raise SettingsError("--hub_model_id goes with --push_to_hub")

    def _check_fusion(self) -> None:
        if self.compile:
            raise SettingsError("--fused_layers and --compile exclude each other: both replace the layers; give one")
        if self.gradient_checkpointing:
            raise SettingsError(
                "--fused_layers keeps no more of an encoder layer than --gradient_checkpointing does, which would only "
                "take time: leave out --gradient_checkpointing"
            )
        if self.hidden_dim > WIDEST_FUSED:
            raise SettingsError(
                f"--fused_layers holds the weights of a layer on the chip, which works for --hidden_dim {WIDEST_FUSED} "
                f"at most, but it is {self.hidden_dim}: leave out --fused_layers"
            )

    def to_dict(self) -> dict[str, Any]:
        """All options as plain values."""
        return dataclasses.asdict(self)


# option -> lowest and highest value allowed
_AT_LEAST_ONE = (1, math.inf)
_AT_LEAST_ZERO = (0, math.inf)
_SHARE = (0, 1)
_RANGES: dict[str, tuple[float, float]] = {
    "min_length": _AT_LEAST_ONE,
    "validation_fraction": _SHARE,
    "num_workers": _AT_LEAST_ZERO,
    "hidden_dim": _AT_LEAST_ONE,
    "num_encoder_layers": _AT_LEAST_ONE,
    "num_decoder_layers": _AT_LEAST_ONE,
    "num_neighbors": _AT_LEAST_ONE,
    "dropout": _SHARE,
    "num_diffusion_steps": _AT_LEAST_ONE,
    "epochs": _AT_LEAST_ONE,
    "batch_size": _AT_LEAST_ONE,
    "batch_residues": _AT_LEAST_ONE,
    "gradient_accumulation_steps": _AT_LEAST_ONE,
    "learning_rate": _AT_LEAST_ZERO,
    "warmup_epochs": _AT_LEAST_ZERO,
    "weight_decay": _AT_LEAST_ZERO,
    "max_grad_norm": _AT_LEAST_ZERO,
    "label_smoothing": _SHARE,
    "backbone_noise": _AT_LEAST_ZERO,
    "fully_masked_fraction": _SHARE,
    "ema_decay": _SHARE,
    "early_stopping_patience": _AT_LEAST_ONE,
    "early_stopping_min_delta": _AT_LEAST_ZERO,
    "seed": _AT_LEAST_ZERO,
    "save_every": _AT_LEAST_ONE,
    "save_every_steps": _AT_LEAST_ONE,
    "keep_last": _AT_LEAST_ONE,
    "keep_every": _AT_LEAST_ONE,
    "num_example_designs": _AT_LEAST_ZERO,
    "max_rollbacks": _AT_LEAST_ZERO,
    "hub_every_minutes": _AT_LEAST_ZERO,
    "timeout_minutes": _AT_LEAST_ZERO,
    "log_every_steps": _AT_LEAST_ONE,
}


def _check_ranges(settings: Settings) -> None:
    for name, (lowest, highest) in _RANGES.items():
        value = getattr(settings, name)
        if value is None:
            continue
        if not isinstance(value, (int, float)) or not lowest <= value <= highest:
            bound = f"from {lowest:g} to {highest:g}" if math.isfinite(highest) else f"at least {lowest:g}"
            raise SettingsError(f"--{name} must be {bound}, but is {value!r}")
    for name in ("learning_rate", "max_grad_norm", "timeout_minutes"):
        if getattr(settings, name) == 0:
            raise SettingsError(f"--{name} must be above 0")


PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_dim": 64, "num_encoder_layers": 3, "num_decoder_layers": 1, "num_neighbors": 16},
    "base": {"hidden_dim": 128, "num_encoder_layers": 5, "num_decoder_layers": 1, "num_neighbors": 30},
    "large": {"hidden_dim": 256, "num_encoder_layers": 8, "num_decoder_layers": 1, "num_neighbors": 30},
}


def sizes_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the `preset` of some options settles."""
    return PRESETS.get(values.get("preset") or "", {})


@dataclass(frozen=True)
class GivenOptions:
    """Options that a person gave for this launch, by the command line or a file, before defaults are filled in."""

    values: dict[str, Any]

    def resolve(self, saved: dict[str, Any] | None = None, settled: dict[str, Any] | None = None) -> Settings:
        """Complete the options: what was given, then what a checkpoint has saved, then the defaults.

        A new run without data and without a settings file is the demonstration, with its own defaults. What the model
        that a new run begins with has `settled` counts as if it was given.
        """
        names = {f.name for f in dataclasses.fields(Settings)}
        if saved is None and not {"pdb_path", "config"} & set(self.values):
            demonstration = read_config_file(DEMO_CONFIG)
            saved = {**sizes_of(demonstration), **demonstration}
        adopted = {name: value for name, value in (saved or {}).items() if name in names - NOT_ADOPTED}
        if {"batch_size", "batch_residues"} & set(self.values):
            adopted = {name: value for name, value in adopted.items() if name not in ("batch_size", "batch_residues")}
        return Settings(**{**adopted, **(settled or {}), **sizes_of(self.values), **self.values})


_PATHS = ("pdb_path", "cache_dir", "split_file", "cluster_file", "save_dir", "mirror_checkpoints_to")


def absolute_paths(settings: dict[str, Any]) -> dict[str, Any]:
    """Options for a settings file: the run may be resumed from another working folder."""
    given = {name: settings[name] for name in _PATHS if settings.get(name) is not None}
    paths = {name: str(Path(path).resolve()) for name, path in given.items() if not is_address(path)}
    return {**settings, **paths}


# Addresses that people try, and what to do instead.
_LOCAL_ONLY = {
    "cache_dir": "it is memory-mapped; give a folder, on a disk of each machine or shared by all",
    "split_file": "copy the file to a folder, or beside cache.json of the cache at --pdb_path",
    "cluster_file": "copy the file to a folder",
    "save_dir": "a checkpoint is committed by renaming a folder, which object stores cannot; give a folder on a file "
    "system that all machines share, and the address as --mirror_checkpoints_to",
}


def refuse_addresses(given: GivenOptions) -> None:
    """Refuse addresses where only paths will do, before a folder of such a name is made.

    Raises
    ------
    SettingsError : says what to do instead
    """
    for name, advice in _LOCAL_ONLY.items():
        if is_address(value := given.values.get(name) or ""):
            raise SettingsError(f"--{name} {value}: must be a path, not an address: {advice}")


# A resumed run does not take these from its checkpoint: they belong to the launch, not to the run.
NOT_ADOPTED = frozenset(
    {
        "resume_from",
        "config",
        "save_dir",
        "gradient_accumulation_steps",
        "num_workers",
        "mixed_precision",
        "gradient_checkpointing",
        "compile",
        "fused_layers",
        "timeout_minutes",
        "extend_schedule",
        "reset_optimizer",
        "reset_schedule",
        "dry_run",
    }
)


def parse_options(arguments: Sequence[str] | None = None) -> GivenOptions:
    """Read the command line and the file that it names.

    Raises
    ------
    SettingsError : the file cannot be read or has an unknown option
    SystemExit : the command line is wrong, or asks for help
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    complete = parser.parse_args(arguments)
    # A second look with all defaults suppressed tells what was really given.
    given = vars(_without_defaults(parser).parse_args(arguments))
    values: dict[str, Any] = {}
    if complete.config is not None:
        values.update(read_config_file(Path(complete.config)))
    values.update(given)
    return GivenOptions(values)


def read_config_file(path: Path) -> dict[str, Any]:
    """Options from a YAML or JSON file, checked for names and types.

    Raises
    ------
    SettingsError : names the file and the option
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"--config {path}: cannot be read ({error.strerror})") from error
    try:
        document = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise SettingsError(
            f"--config {path}: is not valid {'JSON' if path.suffix == '.json' else 'YAML'}: {error}"
        ) from error
    if not isinstance(document, dict):
        raise SettingsError(f"--config {path}: must be a list of options, such as 'epochs: 100'")
    known = {f.name for f in dataclasses.fields(Settings)} - {"config"}
    unknown = sorted(str(name) for name in document if name not in known)
    if unknown:
        raise SettingsError(f"--config {path}: unknown option {', '.join(unknown)}")
    # The command-line parser converts and checks the values, so that both sources mean the same.
    arguments = []
    for name, value in document.items():
        if value is not None:
            arguments += [f"--{name}", str(value)]
    try:
        parsed = vars(_without_defaults(_parser()).parse_args(arguments))
    except SystemExit:
        raise SettingsError(f"--config {path}: has a value of the wrong type (see the line above)") from None
    return {name: parsed[name] for name in document if name in parsed}


def _without_defaults(parser: HfArgumentParser) -> HfArgumentParser:
    for action in parser._actions:
        action.default = argparse.SUPPRESS
    return parser


def _parser() -> HfArgumentParser:
    return HfArgumentParser(
        [Settings],  # type: ignore[list-item]
        prog="train_accelerate.py",
        description="Train a structure-conditioned protein sequence model on PDB / mmCIF files.",
        allow_abbrev=False,
    )
