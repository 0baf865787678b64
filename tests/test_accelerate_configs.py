"""The files of accelerate_configs/: parsed by Accelerate itself, and started as a person or a scheduler starts them.

Without GPUs, ACCELERATE_USE_CPU lets the very same files and launcher start processes that talk by gloo.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

from protein_model.training.arguments import EXAMPLES
from protein_model.training.signals import EXIT_STOPPED

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "accelerate_configs"
YAML = sorted(CONFIGS.glob("*.yaml"))
SCRIPTS = sorted(CONFIGS.glob("*.sh"))
TINY = [
    *("--hidden_dim", "16", "--num_encoder_layers", "1", "--num_decoder_layers", "1", "--num_neighbors", "8"),
    *("--use_discrete_diffusion", "True", "--num_diffusion_steps", "10", "--num_example_designs", "0"),
    *("--batch_residues", "600", "--validation_fraction", "0.2", "--epochs", "2"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> list[str]:
    """Options for a few small structures and their cache."""
    folder = tmp_path_factory.mktemp("structures")
    for path in sorted(EXAMPLES.glob("*.gz"), key=lambda path: path.stat().st_size)[:12]:
        shutil.copy(path, folder)
    return ["--pdb_path", str(folder), "--cache_dir", str(tmp_path_factory.mktemp("cache"))]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ACCELERATE_", "SLURM_"))}
    return {**kept, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **more}


def begin(command: list[str], env: dict[str, str], cwd: Path = ROOT) -> subprocess.Popen:
    return subprocess.Popen(
        command,
        env=env,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def accelerate_launch(config: str, *options: str) -> list[str]:
    return [
        *(sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / config)),
        *(option for option in options),
    ]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def history(save_dir: Path) -> list[dict]:
    epochs = json.loads((save_dir / "history.json").read_text())["epochs"]
    return [{k: v for k, v in epoch.items() if k not in ("seconds", "residues_per_second")} for epoch in epochs]


def test_the_files_are_those_that_are_described():
    names = ["cpu.yaml", "fsdp2_8.yaml", "multi_gpu_8.yaml", "multi_node_2x8.yaml", "single_gpu.yaml"]
    assert [path.name for path in YAML] == names
    assert [path.name for path in SCRIPTS] == ["slurm_multi_node.sh", "slurm_one_node.sh"]


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_accelerate_reads_it_and_knows_every_key(path):
    config = load_config_from_file(str(path))
    expected = {"multi_gpu_8": (8, 1), "fsdp2_8": (8, 1), "multi_node_2x8": (16, 2)}.get(path.stem, (1, 1))
    assert (config.num_processes, config.num_machines) == expected
    assert config.mixed_precision == ("no" if path.stem == "cpu" else "bf16")


@pytest.mark.parametrize("path", [*YAML, *SCRIPTS], ids=lambda path: path.name)
def test_it_says_when_to_use_it_how_and_what_to_change(path):
    comments = "\n".join(line for line in path.read_text().splitlines() if line.startswith("#"))
    assert "train_accelerate.py" in comments
    assert "Change:" in comments or path.stem == "cpu"
    assert (f"--config_file accelerate_configs/{path.name}" if path.suffix == ".yaml" else "sbatch") in comments


@pytest.mark.parametrize("name", ["multi_gpu_8", "multi_node_2x8", "fsdp2_8"])
def test_the_launcher_is_told_what_the_file_says(name):
    """What `accelerate launch` hands to torchrun and to the processes, without starting them."""
    options = [
        *("--config_file", str(CONFIGS / f"{name}.yaml"), "--machine_rank", "0"),
        *("--main_process_ip", "10.0.0.1"),
    ]
    arguments = launch_command_parser().parse_args([*options, "train_accelerate.py"])
    arguments, _, _ = _validate_launch_command(arguments)
    given = prepare_multi_gpu_env(arguments)
    assert given["ACCELERATE_MIXED_PRECISION"] == "bf16"
    assert int(arguments.nproc_per_node) == 8
    if name == "multi_node_2x8":
        assert (int(arguments.nnodes), int(arguments.node_rank)) == (2, 0)
        assert arguments.rdzv_endpoint == "10.0.0.1:29500"
    if name == "fsdp2_8":
        wanted = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_RESHARD_AFTER_FORWARD": "true"}
        assert {**given, **wanted, "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"} == given


@pytest.mark.parametrize(
    "config",
    [
        "cpu.yaml",
        pytest.param(
            "single_gpu.yaml", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
        ),
    ],
)
def test_one_process(data, tmp_path, config):
    gpu = {} if config == "cpu.yaml" else {"ACCELERATE_USE_CPU": "false"}
    command = accelerate_launch(config, "train_accelerate.py", *data, *TINY, "--save_dir", str(tmp_path / "run"))
    process = begin(command, environment(**gpu))
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert "1 process on " + ("cuda, precision bf16" if gpu else "cpu, precision no") in output
    assert len(history(tmp_path / "run")) == 2


def two_nodes(data, tmp_path, processes_per_node: int) -> str:
    """multi_node_2x8.yaml on two "machines" of one: two launchers that meet over the loopback interface."""
    port, save_dir = str(free_port()), str(tmp_path / "nodes")
    launchers = []
    for rank in ("0", "1"):
        options = ["--machine_rank", rank, "--main_process_ip", "127.0.0.1", "--main_process_port", port]
        options += ["--num_processes", str(2 * processes_per_node), "--mixed_precision", "no", "train_accelerate.py"]
        command = accelerate_launch("multi_node_2x8.yaml", *options, *data, *TINY, "--save_dir", save_dir)
        launchers.append(begin(command, environment()))
    outputs = [launcher.communicate(timeout=500)[0] for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [0, 0], outputs
    assert outputs[1].count("epoch 1/2") == 0  # only the first process of the first machine speaks
    return outputs[0]


@pytest.mark.proof
def test_two_machines_train_together(data, tmp_path):
    """That two processes see what one sees is tested with the launcher of one machine."""
    output = two_nodes(data, tmp_path, processes_per_node=1)
    assert "2 processes on cpu" in output and "Global batch: 2 processes x 1 micro-batch" in output
    assert len(history(tmp_path / "nodes")) == 2


@pytest.mark.proof
def test_eight_processes_against_one(data, tmp_path, capsys):
    """multi_gpu_8.yaml as it is: same order, equal losses; prints the time per step of each."""
    seconds = {}
    for name, command in {
        "eight": accelerate_launch("multi_gpu_8.yaml", "--mixed_precision", "no", "train_accelerate.py"),
        "one": [sys.executable, "train_accelerate.py", "--gradient_accumulation_steps", "8"],
    }.items():
        process = begin(
            [*command, *data, *TINY, "--batch_residues", "300", "--save_dir", str(tmp_path / name)], environment()
        )
        output, _ = process.communicate(timeout=900)
        assert process.returncode == 0, output
        assert f"{8 if name == 'eight' else 1} process" in output
        epochs = json.loads((tmp_path / name / "history.json").read_text())["epochs"]
        seconds[name] = epochs[-1]["seconds"] / (epochs[-1]["step"] - epochs[-2]["step"])
    worst = 0.0
    for expected, found in zip(history(tmp_path / "one"), history(tmp_path / "eight"), strict=True):
        assert found == pytest.approx(expected, rel=1e-4)
        worst = max(worst, *(abs(found[key] / expected[key] - 1) for key in ("train_loss", "validation_loss")))
    with capsys.disabled():
        print(
            f"\nlosses of 8 and 1 processes differ by at most {worst:.1e} of their value; "
            f"{1000 * seconds['eight']:.0f} ms per step on 8 processes, {1000 * seconds['one']:.0f} ms on 1, "
            f"{os.cpu_count()} processor cores"
        )


@pytest.mark.proof
def test_two_machines_with_four_processes_each(data, tmp_path):
    assert "8 processes on cpu" in two_nodes(data, tmp_path, processes_per_node=4)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_bash_accepts_the_script_and_slurm_its_settings(path):
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    settings = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", path.read_text(), re.MULTILINE))
    assert "requeue" in settings and settings["signal"] == "USR1@300"
    assert settings["ntasks-per-node"] == settings["gpus-per-node"]  # one process per GPU
    checker = shutil.which("shellcheck")
    if checker is not None:
        done = subprocess.run([checker, str(path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", ["slurm_one_node.sh", "slurm_multi_node.sh"])
@pytest.mark.parametrize(("status", "again"), [(0, False), (1, False), (2, False), (75, True), (138, True)])
def test_what_a_slurm_job_is_requeued_for(tmp_path, script, status, again):
    for name, program in (("srun", f"exit {status}"), ("scontrol", f'[ "$1" = show ] || echo "$@" >> {tmp_path}/done')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{program}\n")
        (tmp_path / name).chmod(0o755)
    variables = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_SUBMIT_DIR": str(tmp_path)}
    variables["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(["bash", str(CONFIGS / script)], env={**os.environ, **variables}, capture_output=True)
    assert done.returncode == status
    assert (tmp_path / "done").exists() == again
    assert not again or (tmp_path / "done").read_text() == "requeue 7\n"


# Stands for SLURM on a machine without it: starts the tasks and passes signals on to them, as srun and slurmd do.
SRUN = """
import os, signal, subprocess, sys
command = [part for part in sys.argv[1:] if not part.startswith("--kill-on-bad-exit")]
tasks = []
for rank in range(int(os.environ["SLURM_NTASKS"])):
    task = {**os.environ, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
    tasks.append(subprocess.Popen(command, env=task))
signal.signal(signal.SIGUSR1, lambda number, frame: [task.send_signal(number) for task in tasks])
sys.exit(max(task.wait() for task in tasks))
"""
SCONTROL = """
import os, sys
if sys.argv[1:3] == ["show", "hostnames"]:
    print("127.0.0.1")
else:
    open(os.environ["REQUEUED"], "a").write(" ".join(sys.argv[1:]) + "\\n")
"""


@pytest.mark.parametrize("script", ["slurm_one_node.sh", pytest.param("slurm_multi_node.sh", marks=pytest.mark.proof)])
def test_a_slurm_job_is_signalled_requeued_and_finished(data, tmp_path, script):
    """Two tasks; the signal before the time limit comes in the middle of training."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, program in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tools / f"{name}.py").write_text(program)
        (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tools / name}.py" "$@"\n')
        (tools / name).chmod(0o755)
    (tools / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tools / "python").chmod(0o755)
    requeued, save_dir = tmp_path / "requeued", tmp_path / "run"
    variables = {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "REQUEUED": str(requeued),
        "SLURM_JOB_ID": str(free_port() - 20000),
        "SLURM_NTASKS": "2",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_SUBMIT_DIR": str(ROOT),
        "PYTHONPATH": str(ROOT),
    }
    options = [*data, *TINY, "--epochs", "12", "--mixed_precision", "no", "--keep_last", "2"]
    options += ["--save_dir", str(save_dir)]
    job = begin(["bash", str(CONFIGS / script), *options], environment(**variables))
    deadline = time.monotonic() + 120
    while not (save_dir / "history.json").exists():
        assert job.poll() is None and time.monotonic() < deadline, job.communicate()[0]
        time.sleep(0.05)
    [srun] = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if f"{tools}/srun.py".encode() in path.read_bytes().split(b"\0")
    ]
    os.kill(srun, signal.SIGUSR1)
    output, _ = job.communicate(timeout=120)
    assert job.returncode == EXIT_STOPPED, output
    assert "Stopped by SIGUSR1" in output
    assert requeued.read_text() == f"requeue {variables['SLURM_JOB_ID']}\n"
    done = len(history(save_dir))
    assert 1 <= done < 12

    last = begin(["bash", str(CONFIGS / script), *options], environment(**variables))
    output, _ = last.communicate(timeout=240)
    assert last.returncode == 0, output
    assert "Resumed from" in output
    assert [entry["epoch"] for entry in history(save_dir)] == list(range(1, 13))
    assert requeued.read_text().count("\n") == 1
