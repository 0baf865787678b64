"""Commands under a launcher."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def on_two_processes(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `python -m protein_model` with arguments on two processes of one `torchrun`."""
    launcher = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv-backend", "c10d"),
        *("--rdzv-endpoint", "localhost:0", "-m", "protein_model"),
    ]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    command = [*launcher, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, cwd=ROOT)
