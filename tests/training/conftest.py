"""Small real runs: a few example structures, a tiny model, the real trainer."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState

from protein_model.training.arguments import EXAMPLES, GivenOptions
from protein_model.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]
TINY = {
    "hidden_dim": 16,
    "num_encoder_layers": 1,
    "num_decoder_layers": 1,
    "num_neighbors": 8,
    "use_discrete_diffusion": True,
    "num_diffusion_steps": 10,
    "epochs": 3,
    "batch_residues": 300,
    "warmup_epochs": 1.0,
    "validation_fraction": 0.2,
    "backbone_noise": 0.05,
    "num_example_designs": 0,
}


@pytest.fixture(autouse=True)
def one_thread():
    """Tests run beside each other; and one thread is the fastest for models this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def structures(tmp_path_factory) -> Path:
    """A folder with the twelve smallest example structures."""
    folder = tmp_path_factory.mktemp("structures")
    for path in sorted(EXAMPLES.glob("*.gz"), key=lambda path: path.stat().st_size)[:12]:
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory) -> Path:
    """Cache shared by all runs."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def start(structures, cache_dir, tmp_path):
    """Start a run in this process: `start(save_dir="run", epochs=5)` gives a `Trainer`."""

    def build(stop=None, **options) -> Trainer:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        given = {"pdb_path": str(structures), "cache_dir": str(cache_dir), "save_dir": str(tmp_path / "run")}
        defaults = {} if "resume_from" in options else TINY
        values = {**given, **defaults, **options}
        values["save_dir"] = str(tmp_path / values["save_dir"])
        return Trainer(GivenOptions(values), stop)

    return build


@pytest.fixture(scope="session")
def finished_run(structures, cache_dir, tmp_path_factory) -> Trainer:
    """A run of two epochs in two shards, with mid-epoch saves; its folder is not to be written to."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    places = {"pdb_path": structures, "cache_dir": cache_dir, "save_dir": tmp_path_factory.mktemp("finished") / "run"}
    options = {"epochs": 2, "save_every_steps": 2, "gradient_accumulation_steps": 2}
    trainer = Trainer(GivenOptions({**TINY, **options, **{name: str(path) for name, path in places.items()}}))
    trainer.fit()
    trainer.store.unlock()
    return trainer


@pytest.fixture
def finished(finished_run, tmp_path) -> SimpleNamespace:
    """The finished run, with a save folder of its own."""
    shutil.copytree(finished_run.save_dir, tmp_path / "finished")
    return SimpleNamespace(**{**vars(finished_run), "save_dir": tmp_path / "finished"})


@pytest.fixture(scope="session")
def trained_run(finished_run) -> Path:
    """Save folder of a finished small run, with a best model; only to be read."""
    return finished_run.save_dir


@pytest.fixture
def launch(structures, cache_dir):
    """Run `train_accelerate.py` as users do, in one or several processes; returns output and exit status.

    A resume takes its options from the checkpoint; `first` says that there may be none yet, so that they are needed.
    Several processes are started by `torchrun`, or with `config` by `accelerate launch`, as this launch config says.
    """

    def run(
        *options: str,
        processes: int = 1,
        config: str | None = None,
        kill_when=None,
        check: bool = True,
        timeout: float = 240,
        first: bool = False,
        kill_signal=signal.SIGKILL,
    ):
        program = [sys.executable, str(ROOT / "train_accelerate.py")]
        if config is not None:
            program = [
                *(sys.executable, "-m", "accelerate.commands.launch"),
                *("--config_file", str(ROOT / "accelerate_configs" / config), "--mixed_precision", "no"),
                *("--num_processes", str(processes), "--main_process_port", "0", str(ROOT / "train_accelerate.py")),
            ]
        elif processes > 1:
            program = [
                *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes)),
                *("--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", str(ROOT / "train_accelerate.py")),
            ]
        resumed = any(option.startswith("--resume") for option in options)
        tiny = (
            []
            if resumed and not first
            else [part for name, value in TINY.items() for part in (f"--{name}", str(value))]
        )
        command = [*program, "--pdb_path", str(structures), "--cache_dir", str(cache_dir), *tiny, *options]
        environment = {
            **os.environ,
            "ACCELERATE_USE_CPU": "true",
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": str(ROOT),
        }
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        if kill_when is not None:
            while process.poll() is None and not kill_when():
                time.sleep(0.005)
            if process.poll() is None:
                # A kill ends all processes; other signals go to the launcher, as a scheduler sends them.
                (os.killpg if kill_signal == signal.SIGKILL else os.kill)(process.pid, kill_signal)
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            raise AssertionError(f"no end after {timeout} s:\n{output}") from None
        if check and kill_when is None:
            assert process.returncode == 0, output
        return output, process.returncode

    return run
