"""The program itself: how it ends, the status it ends with, and what it says last."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState, GradientState

from protein_model.training.arguments import EXAMPLES
from protein_model.training.summary import duration
from protein_model.training.tracking import Tracking
from tests.training.conftest import TINY

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def program():
    """`train_accelerate.py` as a module."""
    specification = importlib.util.spec_from_file_location("train_accelerate", ROOT / "train_accelerate.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def run(program, tmp_path_factory, tmp_path, monkeypatch):
    """Run it in this process; returns the status."""
    files = sorted(EXAMPLES.glob("*.gz"), key=lambda path: path.stat().st_size)[:12]
    listing = tmp_path / "files.txt"
    listing.write_text("\n".join(map(str, files)))
    cache = tmp_path_factory.getbasetemp() / "program_cache"

    def start(*options: str) -> int:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        tiny = [part for name, value in TINY.items() for part in (f"--{name}", str(value))]
        given = ["--pdb_path", str(listing), "--cache_dir", str(cache), "--save_dir", str(tmp_path / "run")]
        monkeypatch.setattr(sys, "argv", ["train_accelerate.py", *given, *tiny, *options])
        return program.main()

    return start


def test_trained_to_the_end_is_0_and_a_summary_says_where_everything_is(run, tmp_path, capsys):
    assert run("--epochs", "2", "--num_example_designs", "1") == 0
    said = capsys.readouterr().out
    summary = said[said.index("Run summary") :]
    assert "2 recorded, the last is number 2, 10 optimizer steps; resumed never" in summary
    assert re.search(r"best {12}validation loss \d\.\d{4} nats/residue, epoch [12]: .*/best_model\n", summary)
    assert f"to go on        --resume_from {tmp_path / 'run' / 'checkpoint_epoch_2'}" in summary
    for name in ("loss_curve.png", "history.csv", "train.log"):
        assert f"{tmp_path / 'run' / name} (" in summary
    assert re.search(r"training time {3}\d+\.\d s in all epochs; this launch took \d+\.\d s", summary)
    assert "designed" in summary  # the last thing is a design
    assert "Run summary" in (tmp_path / "run" / "train.log").read_text()


def test_early_stopping_is_0_and_stays_0(run, capsys):
    patience = ["--epochs", "9", "--early_stopping_patience", "1", "--early_stopping_min_delta", "1000"]
    assert run(*patience) == 0
    assert "Stopped early: no improvement for 1 epoch (--early_stopping_patience 1)" in capsys.readouterr().out
    assert run(*patience, "--resume_from", "latest") == 0


def test_a_dry_run_is_0_and_trains_nothing(run, tmp_path):
    assert run("--dry_run", "True") == 0
    assert not (tmp_path / "run" / "history.json").exists()


def test_numbers_next_to_zero_are_zero_in_all_threads(tmp_path):
    """The programs' own threads start before or after that is asked for; only after it do they know of it."""
    program = (
        "import sys, torch, train_accelerate\n"
        f"sys.argv[1:] = ['--dry_run', '--pdb_path', {str(EXAMPLES)!r}]\n"
        f"sys.argv += ['--cache_dir', {str(tmp_path / 'cache')!r}, '--save_dir', {str(tmp_path / 'run')!r}]\n"
        "torch.set_num_threads(2)\n"
        "assert train_accelerate.main() == 0\n"
        "small = torch.full((4_000_000,), 1e-30)\n"
        "print('left', int((small * 1e-10).count_nonzero()))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.endswith("left 0\n")


@pytest.mark.parametrize(
    "options",
    [
        ["--pdb_path", "nowhere"],
        ["--config", "nowhere.yaml"],
        ["--dropout", "2"],
        ["--resume_from", "checkpoint_epoch_175"],
        ["--push_to_hub", "--hub_model_id", "a/b/c"],
        ["--learning_rate", "1e30", "--on_divergence", "stop"],
    ],
    ids=["data", "settings", "option", "checkpoint", "hub", "diverged"],
)
def test_what_cannot_work_or_diverged_is_2_with_one_message(run, options, capsys):
    assert run(*options) == 2
    [line] = capsys.readouterr().err.split("error: ")[1:]
    assert "Traceback" not in line


def test_a_command_line_that_cannot_be_read_is_2(run):
    with pytest.raises(SystemExit) as caught:
        run("--no_such_option")
    assert caught.value.code == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_stopped_by_a_signal_is_75_and_goes_on_afterwards(run, tmp_path, monkeypatch, number):
    def log_and_signal(tracking, step, *values):
        if step == 3:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patched:
        patched.setattr(Tracking, "step", log_and_signal)
        assert run("--epochs", "2") == 75
    assert (tmp_path / "run" / "checkpoint_step_4").is_dir()
    assert run("--epochs", "2", "--resume_from", "latest") == 0


@pytest.mark.parametrize(("seconds", "text"), [(3.21, "3.2 s"), (600, "10.0 min"), (36e5, "1,000.0 h")])
def test_times_are_told_in_a_fitting_unit(seconds, text):
    assert duration(seconds) == text
