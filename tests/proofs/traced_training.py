"""`train_accelerate.py`, for a launcher to start, with its steps written down in `$PROOF_TRACE.<rank>`."""

import os
import runpy
import sys
from pathlib import Path

from tests.proofs.tracing import install_trace

ROOT = Path(__file__).resolve().parents[2]

if __name__ == "__main__":
    rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    install_trace(Path(f"{os.environ['PROOF_TRACE']}.{rank}"), rank, processes)
    sys.argv[0] = str(ROOT / "train_accelerate.py")
    runpy.run_path(sys.argv[0], run_name="__main__")
