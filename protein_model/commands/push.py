"""`python -m protein_model push`: a trained model -> the Hugging Face Hub."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from .folder_options import add_folder_options, write_folder

ATTEMPTS = 6
FIRST_WAIT_SECONDS = 5.0


def main(arguments: Sequence[str]) -> int:
    """Push a model to the Hub. `export` writes the same folder without a network."""
    parser = argparse.ArgumentParser(prog="python -m protein_model push", description=main.__doc__)
    add_folder_options(parser)
    parser.add_argument("--hub_model_id", required=True, help="repository, organisation/name")
    parser.add_argument("--hub_private", action="store_true", help="make it private if it is new, refuse a public one")
    options = parser.parse_args(arguments)

    from ..training.hub import HubError, HubTarget, push_folder

    target = HubTarget(options.hub_model_id, options.hub_private, options.hub_license)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        write_folder(options, folder, target.repository)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                print(push_folder(folder, target, f"Push {Path(options.model).name}"))
                return 0
            except HubError as error:
                if error.lasting:
                    raise
                if attempt == ATTEMPTS:
                    print(f"error: {error}; given up after {ATTEMPTS} attempts", file=sys.stderr)
                    return 1
                wait = max(FIRST_WAIT_SECONDS * 2 ** (attempt - 1), error.retry_after or 0.0)
                print(f"WARNING: {error}; attempt {attempt + 1} of {ATTEMPTS} in {wait:,.0f} s", file=sys.stderr)
                time.sleep(wait)
    return 1
