"""What differs between this launch and the checkpoint that it resumes, in words, before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

# Settings that make the model what it is; a checkpoint of another model cannot be continued.
ARCHITECTURE = (
    "hidden_dim",
    "num_encoder_layers",
    "num_decoder_layers",
    "num_neighbors",
    "num_radial_bases",
    "max_relative_position",
    "use_discrete_diffusion",
    "num_diffusion_steps",
    "diffusion_kernel",
    "substitution_matrix",
)
# Architecture that the command line does not offer yet; a difference comes from another version of the package.
_WITHOUT_OPTION = frozenset({"num_radial_bases", "max_relative_position", "substitution_matrix"})
# T and the kernel mean nothing to a model that predicts everything in one pass.
_DIFFUSION_ONLY = frozenset({"num_diffusion_steps", "diffusion_kernel", "substitution_matrix"})

SCHEDULE = ("epochs", "learning_rate", "warmup_epochs")
OTHER = (
    "dropout",
    "batch_size",
    "batch_residues",
    "weight_decay",
    "max_grad_norm",
    "label_smoothing",
    "backbone_noise",
    "fully_masked_fraction",
    "ema_decay",
    "early_stopping_patience",
    "early_stopping_min_delta",
    "unit",
    "min_length",
    "use_predefined_split",
    "split_file",
    "cluster_file",
    "validation_fraction",
)


@dataclass(frozen=True)
class Difference:
    """One setting that is not as the checkpoint has it.

    Attributes
    ----------
    severity : "refuse" where the run cannot go on, "change" where the new value takes effect
    name : of the setting
    saved, current : both values
    """

    severity: Literal["refuse", "change"]
    name: str
    saved: Any
    current: Any

    def __str__(self) -> str:
        return f"{self.name}: {_shown(self.saved)} in the checkpoint, {_shown(self.current)} now"


def architecture_differences(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[Difference]:
    """Compare two model configurations, as dictionaries."""
    one_pass = not saved.get("use_discrete_diffusion") and not current.get("use_discrete_diffusion")
    return [
        Difference("refuse", name, saved.get(name), current.get(name))
        for name in ARCHITECTURE
        if saved.get(name) != current.get(name) and not (one_pass and name in _DIFFUSION_ONLY)
    ]


def setting_differences(
    saved: Mapping[str, Any], current: Mapping[str, Any], names: tuple[str, ...]
) -> list[Difference]:
    """Compare settings that may change on resume; one that the checkpoint does not know is no difference."""
    return [
        Difference("change", name, saved[name], current[name])
        for name in names
        if name in saved and saved[name] != current[name]
    ]


def refusal(checkpoint: str, differences: list[Difference]) -> str:
    """Message for a checkpoint of another architecture, with the options that would match it."""
    lines = [f"{checkpoint} holds another model than this launch asks for; nothing was loaded:"]
    lines += [f"  {difference}" for difference in differences]
    options = [option for difference in differences if (option := _option(difference)) is not None]
    if options:
        lines.append(f"To continue it, launch with: {' '.join(options)}")
    if any(difference.name in _WITHOUT_OPTION for difference in differences):
        lines.append("Some of these are no options: the checkpoint comes from another version of this package.")
    return "\n".join(lines)


def _option(difference: Difference) -> str | None:
    if difference.name in _WITHOUT_OPTION:
        return None
    return f"--{difference.name} {difference.saved}"


def _shown(value: Any) -> str:
    return f"a {len(value)} x {len(value[0])} matrix" if isinstance(value, list) else str(value)
