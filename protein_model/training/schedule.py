"""The learning rate as a pure function of the optimizer step."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up from zero, then a cosine down to `final_fraction` of the peak.

    Attributes
    ----------
    peak : highest learning rate
    warmup_steps : optimizer steps until the peak
    total_steps : optimizer steps of the whole run
    final_fraction : rate of the last step as a share of the peak
    """

    peak: float
    warmup_steps: int
    total_steps: int
    final_fraction: float = 0.0

    def rate(self, step: int) -> float:
        """Learning rate of optimizer step `step`, counted from 0."""
        # 1. warm-up
        if step < self.warmup_steps:
            return self.peak * (step + 1) / (self.warmup_steps + 1)
        # 2. after the last step, where a run was shortened
        if step >= self.total_steps:
            return self.peak * self.final_fraction
        # 3. cosine in between
        progress = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
        return self.peak * (self.final_fraction + (1.0 - self.final_fraction) * cosine)
