"""Several processes: the batch and rate they are told of, and what is said when one keeps the others waiting."""

import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protein_model.training.launching import describe_batch, scaled_learning_rate
from tests.training.conftest import ROOT

# Two processes meet at a barrier; one comes late, or is stopped as a hanging machine would be.
MEETING = """
import os, signal, sys, time
from datetime import timedelta
import torch.distributed as dist
from protein_model.training.launching import Whereabouts
dist.init_process_group("gloo", timeout=timedelta(seconds=60))
rank = dist.get_rank()
whereabouts = Whereabouts(rank, 2, lambda text: print(f"[{rank}] {text}", flush=True), timeout_seconds=3.0)
late, how = int(sys.argv[1]), sys.argv[2]
whereabouts.at("step 1: reading a batch")
if rank == late:
    if how == "sleep":
        time.sleep(4)
    else:
        time.sleep(1)
        print(f"stopping {os.getpid()}", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
else:
    time.sleep(0.5)
    whereabouts.at("step 1: computing")
dist.barrier()
print(f"[{rank}] met", flush=True)
whereabouts.close()
dist.destroy_process_group()
"""


def meet(tmp_path: Path, late: int, how: str) -> str:
    (tmp_path / "meeting.py").write_text(MEETING)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv-backend", "c10d"]
    command += ["--rdzv-endpoint", "localhost:0", str(tmp_path / "meeting.py"), str(late), how]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    output = ""
    for line in process.stdout:
        output += line
        if line.startswith("stopping "):
            time.sleep(5)
            os.kill(int(line.split()[1]), signal.SIGCONT)
    assert process.wait() == 0, output
    return output


@pytest.mark.parametrize("late", [pytest.param(0, marks=pytest.mark.proof), 1])
def test_who_keeps_the_others_waiting_is_named_with_what_it_does(tmp_path, late):
    output = meet(tmp_path, late, "sleep")
    [line, *more] = [line for line in output.splitlines() if "WAITING" in line]
    assert len(more) <= 2  # told again only after twice the time
    expected = (
        rf"\[0\] WAITING for [1-3] s, at most 3 s \(--timeout_minutes\): process {late} \(host .+, process number "
        rf"\d+\) has been for \d s at: step 1: reading a batch; process {1 - late} \(.+\) has been for \d s at: step 1"
    )
    assert re.match(expected, line), line
    assert output.count("met") == 2


@pytest.mark.proof
@pytest.mark.parametrize("late", [0, 1])
def test_a_process_without_a_sign_of_life_is_named(tmp_path, late):
    lines = [line for line in meet(tmp_path, late, "stop").splitlines() if "WAITING" in line]
    if late == 1:
        assert any("process 1 (host " in line and "has given no sign of life for" in line for line in lines), lines
    else:  # the one that usually speaks is the silent one
        assert any(re.match(r"\[1\] WAITING: process 1 has not heard of process 0 \(host ", line) for line in lines)


@given(st.floats(1e-6, 1.0), st.integers(1, 512))
def test_rates_scale_as_named(rate, shards):
    assert scaled_learning_rate(rate, "none", shards) == rate
    assert scaled_learning_rate(rate, "linear", shards) == rate * shards
    assert scaled_learning_rate(rate, "sqrt", shards) ** 2 == pytest.approx(rate**2 * shards)


def test_the_scaled_rate_is_said_and_does_not_change_with_the_processes_of_a_resume(start, capsys, monkeypatch):
    trainer = start(gradient_accumulation_steps=4, scale_learning_rate="sqrt", learning_rate=1e-3, epochs=1)
    assert trainer.schedule.peak == pytest.approx(2e-3)
    said = capsys.readouterr().out
    assert "Learning rate 1.000e-03 scaled for 4 micro-batches per optimizer step: peak 2.000e-03" in said
    trainer.fit()
    again = start(resume_from="latest", scale_learning_rate="sqrt", learning_rate=1e-3, epochs=2)
    assert again.schedule.peak == pytest.approx(2e-3)
    unscaled = start(resume_from="latest", scale_learning_rate="none", epochs=2)
    assert unscaled.schedule.peak == pytest.approx(1e-3)
    assert "Changed on resume: scale_learning_rate: sqrt in the checkpoint, none now" in capsys.readouterr().out


def test_the_global_batch_is_told():
    lengths = np.full(1000, 100)
    text = describe_batch(None, 6000, 16, 8, lengths, 50)
    assert text == (
        "Global batch: 8 processes x 2 micro-batches of at most 6,000 residues; on average 20.0 structures with 2,000 "
        "residues per optimizer step"
    )
    assert "1 process x 1 micro-batch of at most 4 structures and 50 residues" in describe_batch(
        4, 50, 1, 1, lengths, 9
    )
    assert math.isfinite(float(re.search(r"average ([\d.]+)", text)[1]))


@pytest.mark.proof
def test_a_hanging_process_ends_the_run_with_its_name(launch, tmp_path):
    """One of two trainers is stopped in the middle of training; the other says so and gives up in time."""
    log = tmp_path / "run" / "train.log"
    stopped: list[int] = []

    def stop_one() -> bool:
        if log.is_file() and "epoch 1/" in log.read_text() and not stopped:
            for status in Path("/proc").glob("[0-9]*/environ"):
                try:
                    environment = status.read_bytes()
                except OSError:
                    continue
                if (
                    b"LOCAL_RANK=1" in environment
                    and str(tmp_path).encode() in (status.parent / "cmdline").read_bytes()
                ):
                    stopped.append(int(status.parent.name))
                    os.kill(stopped[0], signal.SIGSTOP)
        told = bool(stopped) and "WAITING" in log.read_text()
        if told:
            os.kill(stopped[0], signal.SIGKILL)
        return told

    launch(
        *("--save_dir", str(tmp_path / "run"), "--epochs", "400", "--timeout_minutes", "0.2"),
        processes=2,
        kill_when=stop_one,
    )
    assert stopped
    assert "process 1 (host " in log.read_text() and "has given no sign of life" in log.read_text()
