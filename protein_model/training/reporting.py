"""What a person sees while a run goes on: a progress bar in a terminal, dated lines in a log file."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from tqdm import tqdm

LOG_FILE = "train.log"

LINES_KEPT = 1000  # while the log file cannot be written to
SECONDS_BETWEEN_LINES = 30.0
SECONDS_BETWEEN_BAR_UPDATES = 0.5


class Console:
    """Prints on the main process only, and keeps what it prints in a log file.

    Parameters
    ----------
    active : this is the main process
    """

    def __init__(self, active: bool):
        self.active = active
        self.interactive = active and sys.stderr.isatty()
        self._log: Path | None = None
        self._unwritten: list[str] = []  # until the file is known
        self._failing = False
        self._lock = threading.Lock()  # checkpoints and pushes speak from threads of their own

    def say(self, text: str) -> None:
        """Print a line, above the progress bar if there is one."""
        if not self.active:
            return
        if self.interactive:
            tqdm.write(text)
        else:
            print(text, flush=True)
        self.note(text)

    def tell(self, text: str) -> None:
        """Print a line whichever process this is: for what the main process may be unable to say."""
        if self.active:
            self.say(text)
        else:
            print(text, flush=True)

    def note(self, text: str) -> None:
        """Write a line to the log file alone, with date and time."""
        if not self.active:
            return
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        with self._lock:
            self._unwritten += [f"{stamp}  {line}\n" for line in text.splitlines()]
            self._write()

    def log_to(self, path: Path) -> None:
        """Append what is said to this file, and what was said before it was known."""
        if not self.active:
            return
        with self._lock:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.open("a").close()
                self._log = path
            except OSError as error:
                print(f"WARNING: there will be no log file: {path}: {error.strerror or error}", flush=True)
            self._write()

    def _write(self) -> None:
        if self._log is None:
            del self._unwritten[:-LINES_KEPT]
            return
        try:
            # Opened for each line, which are rare: so the file is closed whichever way a run ends.
            with self._log.open("a", encoding="utf-8") as log:
                log.writelines(self._unwritten)
        except OSError as error:
            if not self._failing:  # once; the next line tries again, with what could not be written
                print(f"WARNING: {self._log} cannot be written to ({error.strerror or error})", flush=True)
            self._failing = True
            del self._unwritten[:-LINES_KEPT]
        else:
            self._failing = False
            self._unwritten.clear()


class EpochProgress:
    """Progress of one epoch's optimizer steps.

    Asking for the numbers to show may make the device wait, so `due` tells when they will be shown.
    """

    def __init__(self, console: Console, epoch: int, epochs: int, first_step: int, steps: int):
        self._console = console
        self._title = f"epoch {epoch}/{epochs}"
        self._steps = steps
        self._done = first_step
        self._last_shown = self._last_noted = time.monotonic()
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
        line = (
            f"{self._title}  step {self._done}/{self._steps}  loss {loss:.4f} nats/residue  "
            f"rate {learning_rate:.2e}  {residues_per_second:,.0f} residues/s"
        )
        if self._bar is None:
            self._console.say(line)
            return
        self._bar.set_postfix_str(
            f"loss {loss:.3f}, rate {learning_rate:.2e}, {residues_per_second:,.0f} residues/s", refresh=True
        )
        # The bar leaves nothing behind; the log file is to read like that of a run without a terminal.
        if self._last_shown - self._last_noted >= SECONDS_BETWEEN_LINES:
            self._last_noted = self._last_shown
            self._console.note(line)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
