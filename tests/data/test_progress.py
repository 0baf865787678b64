"""What is shown while something takes long: a bar in a terminal, now and then a line elsewhere, or nothing."""

from __future__ import annotations

import io
import re
import sys

import pytest

import protein_model.data.progress as progress
from protein_model.data.progress import Progress


class Terminal(io.StringIO):
    """A screen."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when told to."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_every_few_seconds(clock, capsys):
    display = Progress(True, "reading structures")
    display.start(3000, "file")
    for _ in range(3000):
        clock[0] += 0.01
        display.advance()
    display.close()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) in (2, 3)
    assert re.fullmatch(r"reading structures: 1,00\d of 3,000 files, 100 files/s, 20 s left", lines[0])


def test_a_terminal_gets_a_bar_that_goes_away(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    display = Progress(True, "reading structures")
    display.start(10, "file")
    display.advance(10)
    display.close()
    shown = screen.getvalue()
    assert "reading structures" in shown
    assert "0/10" in shown
    assert "\n" not in shown


def test_what_is_read_twice_is_not_counted_beyond_the_total(clock, capsys):
    display = Progress(True, "x")
    display.start(3, "file")
    for _ in range(5):
        clock[0] += 60
        display.advance(2)
    assert [line.split(",")[0] for line in capsys.readouterr().err.splitlines()] == [
        "x: 2 of 3 files",
        "x: 3 of 3 files",
    ]


def test_nothing_is_shown_where_it_is_not_wanted(clock, capsys):
    display = Progress(False, "x")
    display.start(3, "file")
    clock[0] += 60
    display.advance()
    display.say("hello")
    display.close()
    assert capsys.readouterr().err == ""
