"""What a person sees while a cache is built: a bar by files in a terminal, a line every few seconds in a log file."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0


class FileProgress:
    """Counts files that are being read.

    Parameters
    ----------
    active : show anything at all
    """

    def __init__(self, active: bool):
        self._active = active
        self._bar: tqdm | None = None
        self._total = 0
        self._done = 0
        self._started = self._last_line = time.monotonic()

    def say(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        if self._active:
            tqdm.write(text, file=sys.stderr)

    def start(self, total: int) -> None:
        """Begin to count up to `total` files."""
        self._total = total
        self._started = self._last_line = time.monotonic()
        if self._active and sys.stderr.isatty():
            self._bar = tqdm(total=total, desc="reading structures", unit="file", leave=False, dynamic_ncols=True)

    def advance(self) -> None:
        """Count one file."""
        if self._done == self._total:
            return  # a file that changed while it was read is read twice
        self._done += 1
        if self._bar is not None:
            self._bar.update()
            return
        now = time.monotonic()
        if now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            rate = self._done / (now - self._started)
            left = (self._total - self._done) / rate
            self.say(
                f"reading structures: {self._done:,} of {self._total:,} files, {rate:,.0f} files/s, {left:,.0f} s left"
            )

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
