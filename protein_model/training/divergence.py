"""What is done about a step whose loss or gradient is not finite (`--on_divergence`). The weights never see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UserError
from ..wording import counted
from .arguments import Settings
from .progress import LossHistory

MAX_SKIPS_IN_A_ROW = 20  # after so many the weights themselves are the trouble
_NAMES_SHOWN = 20


class RunDiverged(UserError, RuntimeError):
    """Losses or gradients are not finite, and `--on_divergence` does not let the run go on."""


@dataclass(frozen=True)
class Refused:
    """A step that was not taken.

    Attributes
    ----------
    step : counted from 0
    event : for the history
    what : in words, with the structures of its batch
    """

    step: int
    event: dict[str, Any]
    what: str


class DivergencePolicy:
    """Decides, the same on every process.

    Parameters
    ----------
    settings : of the run
    say : prints a line
    """

    def __init__(self, settings: Settings, say: Callable[[str], None]):
        self._action = settings.on_divergence
        self._max_rollbacks = settings.max_rollbacks
        self._say = say
        self._skips_in_a_row = 0

    def step_taken(self) -> None:
        """Count a step that went well."""
        self._skips_in_a_row = 0

    def rollback_wanted(self, refused: Refused, history: LossHistory) -> bool:
        """Whether to go back to a checkpoint; else the step is simply left out, and noted in the history.

        Raises
        ------
        RunDiverged : the run must not go on
        """
        what = refused.what
        if self._action == "stop":
            raise RunDiverged(f"{what}. The run stops before the weights are touched (--on_divergence stop)")
        if self._action == "rollback":
            done = sum(entry["action"] == "rollback" for entry in history.divergences)
            if done >= self._max_rollbacks:
                raise RunDiverged(
                    f"{what}. {counted(done, 'rollback is', 'rollbacks are')} done, and --max_rollbacks allows no more"
                )
            return True
        self._skips_in_a_row += 1
        if self._skips_in_a_row >= MAX_SKIPS_IN_A_ROW:
            raise RunDiverged(
                f"{what}. So it was {MAX_SKIPS_IN_A_ROW} times in a row: the weights themselves are the trouble. Go "
                "back with --resume_from an earlier checkpoint, with a lower --learning_rate"
            )
        history.divergences.append(refused.event)
        self._say(f"WARNING: {what}. The step is left out (--on_divergence skip).")
        return False

    def refused(self, step: int, steps_per_epoch: int, names: Sequence[str]) -> Refused:
        """Describe a step that was not taken.

        Parameters
        ----------
        step : counted from 0
        names : structures of its batch, on all processes
        """
        names = sorted(names)
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        return Refused(
            step,
            {"step": step, "epoch": step / steps_per_epoch, "action": self._action, "structures": names},
            f"loss or gradient of optimizer step {step + 1} is not finite; structures of its batch: "
            f"{', '.join(names[:_NAMES_SHOWN])}{more}",
        )
