"""The commands from outside: how they end."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time

from protein_model.__main__ import COMMANDS, main
from tests.inference.evaluation_cases import EXAMPLES


def test_interrupted_designing_ends_with_one_line_and_goes_on(tiny_model_folder, tmp_path):
    out = tmp_path / "out"
    command = [
        *(sys.executable, "-m", "protein_model", "design", "--model", str(tiny_model_folder)),
        *("--pdb_path", str(EXAMPLES), "--out_dir", str(out), "--num_steps", "L", "--num_sequences", "8"),
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    while process.poll() is None and not (out / "run.json").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert said.endswith("stopped by Ctrl-C; the same command goes on\n") and "Traceback" not in said
    assert process.returncode == 130


def test_a_disk_that_is_full_in_the_midst_of_the_work_is_an_error_in_one_line(monkeypatch, capsys):
    def full(arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out/x")

    monkeypatch.setitem(COMMANDS, "export", (full, ""))
    assert main(["export"]) == 2
    assert capsys.readouterr().err == "error: out/x: No space left on device\n"
