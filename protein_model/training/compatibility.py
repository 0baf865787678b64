"""What differs between this launch and the checkpoint that it resumes, in words, before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["refuse", "warn", "note"]

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
# Architecture that the command line does not offer; a difference comes from another version of the package.
WITHOUT_OPTION = frozenset({"num_radial_bases", "max_relative_position", "substitution_matrix"})
# T and the kernel mean nothing to a model that predicts everything in one pass.
_DIFFUSION_ONLY = frozenset({"num_diffusion_steps", "diffusion_kernel", "substitution_matrix"})

# Settings that a resume may change, and what follows from it where that is not plain.
_NEW_ORDER = "order and randomness of what is left are those of another run"
_OTHER_ROUNDING = "rounding and dropout are others from here on: no longer equal, bit for bit, to a run that stays"
_CHANGEABLE: dict[str, tuple[Severity, str]] = {
    "epochs": ("note", ""),
    "learning_rate": ("note", ""),
    "scale_learning_rate": ("note", ""),
    "warmup_epochs": ("note", ""),
    "dropout": ("note", ""),
    "weight_decay": ("note", ""),
    "max_grad_norm": ("note", ""),
    "label_smoothing": ("note", ""),
    "backbone_noise": ("note", ""),
    "fully_masked_fraction": ("note", "validation losses before and after are not comparable"),
    "ema_decay": ("note", ""),
    "early_stopping_patience": ("note", ""),
    "early_stopping_min_delta": ("note", ""),
    "seed": ("warn", _NEW_ORDER),
    "batch_size": ("warn", _NEW_ORDER),
    "batch_residues": ("warn", _NEW_ORDER),
    "shuffle_within_parts": ("warn", _NEW_ORDER),
    "unit": ("warn", ""),
    "min_length": ("warn", ""),
    "use_predefined_split": ("warn", ""),
    "split_file": ("warn", ""),
    "cluster_file": ("warn", ""),
    "validation_fraction": ("warn", ""),
    "deterministic": ("warn", "the run is no longer equal, bit for bit, to one on another number of processes"),
    "compile": ("warn", _OTHER_ROUNDING),
    "fused_layers": ("warn", _OTHER_ROUNDING),
}
_DATA: dict[str, str] = {
    "training_structures": "the order of the epochs is another one",
    "validation_structures": "",
    "fingerprint": "structure files or reading options have changed",
    "validation_set": "validation losses before and after are not comparable, so the best one is looked for anew",
}


@dataclass(frozen=True)
class Difference:
    """One thing that this launch wants otherwise than the checkpoint has it.

    Attributes
    ----------
    severity : "refuse" where the run cannot go on, "warn" where results are affected, "note" where a wish takes effect
    name : of the setting
    saved, current : both values
    consequence : what follows, empty where it is plain
    """

    severity: Severity
    name: str
    saved: Any
    current: Any
    consequence: str = ""

    def __str__(self) -> str:
        text = f"{self.name}: {_shown(self.saved)} in the checkpoint, {_shown(self.current)} now"
        return f"{text}; {self.consequence}" if self.consequence else text


def architecture_differences(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[Difference]:
    """Compare two model configurations, as dictionaries."""
    one_pass = not saved.get("use_discrete_diffusion") and not current.get("use_discrete_diffusion")
    return [
        Difference("refuse", name, saved.get(name), current.get(name))
        for name in ARCHITECTURE
        if saved.get(name) != current.get(name) and not (one_pass and name in _DIFFUSION_ONLY)
    ]


def run_differences(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[Difference]:
    """Compare two run descriptions (the content of settings.json); what one does not know is no difference.

    Returns
    -------
    warnings first, then notes
    """
    found: list[Difference] = []
    for name, (severity, consequence) in _CHANGEABLE.items():
        found += _changed(severity, name, saved["settings"], current["settings"], consequence)
    for name, consequence in _DATA.items():
        found += _changed("warn", name, saved["data"], current["data"], consequence)
    found += _changed("warn", "mixed_precision", saved, current, "rounding differs from here on")
    found += _changed("note", "processes", saved, current, "same global batches in the same order")
    for package in saved["versions"]:
        found += _changed("note", package, saved["versions"], current["versions"], "version")
    return sorted(found, key=lambda difference: difference.severity != "warn")


def _changed(
    severity: Severity, name: str, saved: Mapping[str, Any], current: Mapping[str, Any], consequence: str
) -> list[Difference]:
    if name not in saved or name not in current or saved[name] == current[name]:
        return []
    return [Difference(severity, name, saved[name], current[name], consequence)]


def refusal(checkpoint: str, differences: Sequence[Difference]) -> str:
    """Message for a checkpoint of another architecture, with the options that would match it."""
    lines = [f"{checkpoint} holds another model than this launch asks for; nothing was loaded:"]
    lines += [f"  {difference}" for difference in differences]
    options = [option for difference in differences if (option := _option(difference)) is not None]
    if options:
        lines.append(f"To continue it, launch with: {' '.join(options)}")
    if any(difference.name in WITHOUT_OPTION for difference in differences):
        lines.append("Some of these are no options: the checkpoint comes from another version of this package.")
    return "\n".join(lines)


def _option(difference: Difference) -> str | None:
    if difference.name in WITHOUT_OPTION:
        return None
    return f"--{difference.name} {difference.saved}"


def _shown(value: Any) -> str:
    return f"a {len(value)} x {len(value[0])} matrix" if isinstance(value, list) else str(value)
