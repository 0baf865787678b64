"""`python -m protein_model export`: a trained model -> a folder of its own, to share or to ship."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from .folder_options import add_folder_options, write_folder


def main(arguments: Sequence[str]) -> int:
    """Write a trained model as a folder of its own: weights, configuration, model card, the model's code."""
    parser = argparse.ArgumentParser(prog="python -m protein_model export", description=main.__doc__)
    add_folder_options(parser)
    parser.add_argument(
        "--out_dir", type=Path, required=True,
        help="folder to make; one that was made so before is replaced, with the name that it gives the model",
    )  # fmt: skip
    parser.add_argument(
        "--without_code", action="store_true", help="leave the model's own code out, for a model inside the package"
    )
    options = parser.parse_args(arguments)
    write_folder(options, options.out_dir, None, with_code=not options.without_code)
    size = sum(path.stat().st_size for path in options.out_dir.iterdir())
    print(f"{options.out_dir}: {size / 1e6:,.1f} MB in all")
    return 0
