"""The commands of the README's "The life of a run", one after the other, as they stand there.

    python -m pytest -m proof tests/proofs/test_life_of_a_run.py

What differs: the settings are small (`SMALL` is added to `run.yaml`, and epochs are fewer), the launch config is that
of the CPU, and the Hub is a server on the loopback interface that lets 30 % of the requests fail. The first launch is
killed after its first checkpoint.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from protein_model.training.arguments import EXAMPLES
from tests.training.hub_server import TOKEN, HubServer, failing

ROOT = Path(__file__).resolve().parents[2]
SMALL = """
hidden_dim: 16
num_encoder_layers: 1
num_decoder_layers: 1
num_neighbors: 8
batch_residues: 400
validation_fraction: 0.2
"""
FEWER = {"epochs: 100": "epochs: 4", "--epochs 150": "--epochs 6", "--epochs 20": "--epochs 2", "500": "2"}


def blocks() -> tuple[str, list[str]]:
    """`run.yaml` and the commands, one a line, of the README."""
    text = (ROOT / "README.md").read_text()
    section = re.search(r"^## The life of a run\n(.*?)^## ", text, re.DOTALL | re.MULTILINE)
    assert section is not None
    found = re.findall(r"```(yaml|bash)\n(.*?)```", section[1], re.DOTALL)
    yaml = [body for kind, body in found if kind == "yaml"]
    assert len(yaml) == 1
    for usual, few in FEWER.items():
        yaml[0] = yaml[0].replace(usual, few)
    return yaml[0] + SMALL, [line for kind, body in found if kind == "bash" for line in body.strip().splitlines()]


def small(command: str) -> str:
    for usual, few in FEWER.items():
        command = command.replace(usual, few)
    return re.sub(r"accelerate_configs/\w+\.yaml", "accelerate_configs/cpu.yaml", command)


def killed_after_a_checkpoint(command: str, folder: Path, environment: dict[str, str]) -> None:
    process = subprocess.Popen(command, shell=True, cwd=folder, env=environment, start_new_session=True)
    started = time.monotonic()
    while not list((folder / "run").glob("checkpoint_*")):
        assert process.poll() is None and time.monotonic() - started < 180, "no checkpoint"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def tensorboard_points(folder: Path) -> Counter[tuple[str, int]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    points: Counter[tuple[str, int]] = Counter()
    for file in folder.rglob("events.out.tfevents.*"):
        events = EventAccumulator(str(file))
        events.Reload()
        points.update((tag, event.step) for tag in events.Tags()["scalars"] for event in events.Scalars(tag))
    return points


@pytest.mark.proof
def test_every_command_of_the_readme(tmp_path, figures):
    for name in ("protein_model", "train_accelerate.py", "accelerate_configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    files = sorted(EXAMPLES.glob("*.gz"), key=lambda path: path.stat().st_size)
    for folder, chosen in (("my_structures", files[:16]), ("my_family", files[16:22])):
        (tmp_path / folder).mkdir()
        for file in chosen:
            shutil.copy(file, tmp_path / folder)
    settings, commands = blocks()
    (tmp_path / "run.yaml").write_text(settings)
    with HubServer() as server:
        server.writable.add("org")
        server.rule = failing(0.3, seed=1)
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "HF_ENDPOINT": server.url,
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",
        }
        launches = 0
        for command in commands:
            launches += "train_accelerate.py" in command
            if "train_accelerate.py" in command and launches == 1:
                killed_after_a_checkpoint(small(command), tmp_path, environment)
                continue
            done = subprocess.run(
                small(command), shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        pushed, failures = server.repositories["org/name"].files, sum(server.failures.values())
    assert "model.safetensors" in pushed and failures
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert [epoch["epoch"] for epoch in history["epochs"]] == [1, 2, 3, 4, 5, 6]
    points = tensorboard_points(tmp_path / "run")
    assert points and set(points.values()) == {1}, "a point is doubled"
    losses = [step for tag, step in points if "validation_loss" in tag]
    assert len(losses) == 6
    with (tmp_path / "designs" / "designs.csv").open(newline="") as stream:
        designs = list(csv.DictReader(stream))
    assert len(designs) == 6 * 8
    figures(
        f"life of a run: {len(commands)} commands, one launch killed; {len(points):,} points in TensorBoard, each once;"
        f" {len(designs)} designs; pushed in spite of {failures} failed requests"
    )
