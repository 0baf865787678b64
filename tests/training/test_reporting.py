"""The log file of a run."""

from __future__ import annotations

import shutil

from protein_model.training.reporting import Console


def lines(path):
    return [line.split("  ", 1)[1] for line in path.read_text().splitlines()]


def test_what_was_said_before_the_file_was_known_is_in_it(tmp_path):
    console = Console(True)
    console.say("early")
    console.log_to(tmp_path / "run/train.log")
    console.say("late")
    assert lines(tmp_path / "run/train.log") == ["early", "late"]


def test_lines_that_cannot_be_written_come_later_and_one_warning_is_enough(tmp_path, capsys):
    console = Console(True)
    console.log_to(tmp_path / "run/train.log")
    shutil.rmtree(tmp_path / "run")
    console.say("one")
    console.say("two")
    assert capsys.readouterr().out.count("WARNING") == 1
    (tmp_path / "run").mkdir()
    console.say("three")
    assert lines(tmp_path / "run/train.log") == ["one", "two", "three"]
