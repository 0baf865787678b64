"""`python -m protein_model push`: a trained model -> the Hugging Face Hub."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ATTEMPTS = 6
FIRST_WAIT_SECONDS = 5.0


def main(arguments: Sequence[str]) -> int:
    """Push a model to the Hub, or write the folder that would be pushed."""
    parser = argparse.ArgumentParser(prog="python -m protein_model push", description=main.__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of a trained model, such as best_model")
    parser.add_argument("--hub_model_id", default=None, help="repository, organisation/name")
    parser.add_argument("--hub_private", action="store_true", help="make it private if it is new, refuse a public one")
    parser.add_argument("--hub_license", default=None, help="licence of the weights, for the model card [mit]")
    parser.add_argument("--out_dir", type=Path, default=None, help="only write here what would be pushed")
    options = parser.parse_args(arguments)

    from ..training.hub import DEFAULT_LICENCE, HubError, HubTarget, push_folder
    from ..training.model_folder import write_model_folder

    licence = options.hub_license or DEFAULT_LICENCE
    if options.out_dir is not None:
        write_model_folder(options.model, options.out_dir, options.hub_model_id, licence)
        print(options.out_dir)
        return 0
    if options.hub_model_id is None:
        parser.error("--hub_model_id is needed, or --out_dir for a folder on this machine")
    target = HubTarget(options.hub_model_id, options.hub_private, licence)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        write_model_folder(options.model, folder, target.repository, licence)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                print(push_folder(folder, target, f"Push {options.model.name}"))
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
