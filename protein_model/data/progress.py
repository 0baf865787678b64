"""What a person sees while something takes long: a bar in a terminal, a line every few seconds in a log file."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

from ..wording import counted

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts what is being done, such as files that are read.

    Parameters
    ----------
    active : show anything at all
    doing : what is done, such as "reading structures"
    """

    def __init__(self, active: bool, doing: str):
        self._active = active
        self._doing = doing
        self._unit = ""
        self._bar: tqdm | None = None
        self._total = 0
        self._done = 0
        self._started = self._last_line = time.monotonic()

    def say(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        if self._active:
            tqdm.write(text, file=sys.stderr)

    def start(self, total: int, unit: str) -> None:
        """Begin to count up to `total`; `unit` is one of what is counted, such as "file"."""
        self._total, self._done, self._unit = total, 0, unit
        self._started = self._last_line = time.monotonic()
        if self._active and sys.stderr.isatty():
            self._bar = tqdm(total=total, desc=self._doing, unit=self._unit, leave=False, dynamic_ncols=True)

    def advance(self, count: int = 1) -> None:
        """Count some more, never beyond the total: a file that changed while it was read is read twice."""
        count = min(count, self._total - self._done)
        if count == 0:
            return
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
            return
        now = time.monotonic()
        if now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            rate = self._done / (now - self._started)
            left = (self._total - self._done) / rate
            self.say(
                f"{self._doing}: {self._done:,} of {counted(self._total, self._unit)}, {rate:,.0f} {self._unit}s/s, "
                f"{left:,.0f} s left"
            )

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
