"""The learning rate as a pure function of the optimizer step, and what becomes of it when a run is resumed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Extension = Literal["stretch", "hold", "rewarm"]


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then a cosine down to `final_fraction` of the peak.

    Attributes
    ----------
    peak : highest learning rate
    warmup_steps : optimizer steps from `start_step` until the peak
    total_steps : optimizer step at which the cosine ends, counted from the beginning of the run
    start_step : optimizer step at which this schedule takes over; 0 for a run that was never given another one
    start_rate : rate from which the warm-up rises
    final_fraction : rate at the end as a share of the peak
    """

    peak: float
    warmup_steps: int
    total_steps: int
    start_step: int = 0
    start_rate: float = 0.0
    final_fraction: float = 0.0

    def rate(self, step: int) -> float:
        """Learning rate of optimizer step `step`, counted from 0."""
        done = max(step - self.start_step, 0)
        # 1. warm-up
        if done < self.warmup_steps:
            return self.start_rate + (self.peak - self.start_rate) * (done + 1) / (self.warmup_steps + 1)
        # 2. after the last step, where a run was shortened
        if step >= self.total_steps:
            return self.peak * self.final_fraction
        # 3. cosine in between
        progress = (done - self.warmup_steps) / max(1, self.total_steps - self.start_step - self.warmup_steps)
        cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
        return self.peak * (self.final_fraction + (1.0 - self.final_fraction) * cosine)

    def to_dict(self) -> dict[str, float]:
        """Plain values, for the settings file of a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Schedule:
        """The schedule that `to_dict` was called on."""
        return cls(**values)


def extended(schedule: Schedule, how: Extension, step: int, total_steps: int, warmup_steps: int) -> Schedule:
    """The schedule of a run that goes on to more steps than it was begun with.

    Parameters
    ----------
    schedule : so far
    how : "stretch", the curve as if the new total had been known from the start, so the rate rises at once; "hold", the
        present rate until the end; "rewarm", a warm-up from the present rate back to the peak, then the cosine
    step : optimizer steps done
    total_steps : new end
    warmup_steps : of "rewarm"
    """
    if how == "stretch":
        return replace(schedule, total_steps=total_steps)
    present = schedule.rate(max(step - 1, 0))
    if how == "hold":
        return Schedule(present, 0, total_steps, start_step=step, final_fraction=1.0)
    return Schedule(schedule.peak, warmup_steps, total_steps, start_step=step, start_rate=present)


def restarted(schedule: Schedule, step: int) -> Schedule:
    """Warm-up and cosine from the beginning, between `step` and the end of `schedule`."""
    return replace(schedule, start_step=step, start_rate=0.0)
