"""`python -m protein_model inspect`: what is in a checkpoint, and whether it is whole."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

DESCRIPTION = """Show what is in a checkpoint folder, a .pt file, or all checkpoints of a save folder, and verify every
file. Nothing is changed. Exit status: 0 everything is whole, 1 something is damaged, 2 not a checkpoint."""


def main(arguments: Sequence[str]) -> int:
    """Show and verify checkpoints."""
    parser = argparse.ArgumentParser(prog="python -m protein_model inspect", description=DESCRIPTION)
    parser.add_argument("path", metavar="DIR_OR_FILE", type=Path, help="checkpoint folder, save folder, or .pt file")
    parser.add_argument("--json", action="store_true", help="print everything as JSON instead")
    options = parser.parse_args(arguments)

    from tqdm import tqdm

    from ..training.inspection import SaveFolderReport, inspect_path, total_size
    from ..training.inspection_text import checkpoint_text, save_folder_text

    size = total_size(options.path) if options.path.exists() else 0
    with tqdm(
        total=size, unit="B", unit_scale=True, desc="verifying", leave=False, disable=not sys.stderr.isatty()
    ) as bar:
        report = inspect_path(options.path, bar.update)
    if options.json:
        print(json.dumps(report.to_dict(), indent=1))
    elif isinstance(report, SaveFolderReport):
        print(save_folder_text(report))
    else:
        print(checkpoint_text(report))
    return 1 if report.problems else 0
