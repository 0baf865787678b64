"""What a person sees while a run goes on: a progress bar in a terminal, dated lines in a log file."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 30.0
SECONDS_BETWEEN_BAR_UPDATES = 0.5


class Console:
    """Prints on the main process only.

    Parameters
    ----------
    active : this is the main process
    """

    def __init__(self, active: bool):
        self.active = active
        self.interactive = active and sys.stderr.isatty()

    def say(self, text: str) -> None:
        """Print a line, above the progress bar if there is one."""
        if not self.active:
            return
        if self.interactive:
            tqdm.write(text)
        else:
            print(text, flush=True)


class EpochProgress:
    """Progress of one epoch's optimizer steps.

    Asking for the numbers to show may make the device wait, so `due` tells when they will be shown.
    """

    def __init__(self, console: Console, epoch: int, epochs: int, first_step: int, steps: int):
        self._console = console
        self._title = f"epoch {epoch}/{epochs}"
        self._steps = steps
        self._done = first_step
        self._last_shown = time.monotonic()
        self._bar = (
            tqdm(total=steps, initial=first_step, desc=self._title, unit="step", leave=False, dynamic_ncols=True)
            if console.interactive
            else None
        )

    def advance(self) -> bool:
        """Count a step. True if the numbers should be shown now."""
        self._done += 1
        if self._bar is not None:
            self._bar.update()
        wait = SECONDS_BETWEEN_BAR_UPDATES if self._bar is not None else SECONDS_BETWEEN_LINES
        return self._console.active and time.monotonic() - self._last_shown >= wait

    def show(self, loss: float, learning_rate: float, residues_per_second: float) -> None:
        """Show the state of the epoch."""
        self._last_shown = time.monotonic()
        if self._bar is not None:
            self._bar.set_postfix_str(
                f"loss {loss:.3f}, rate {learning_rate:.2e}, {residues_per_second:,.0f} residues/s", refresh=True
            )
        else:
            self._console.say(
                f"{self._title}  step {self._done}/{self._steps}  loss {loss:.4f} nats/residue  "
                f"rate {learning_rate:.2e}  {residues_per_second:,.0f} residues/s"
            )

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
