"""`python -m protein_model convert`: checkpoint folder <-> single `.pt` file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

DESCRIPTION = """Turn a checkpoint folder into a single .pt file, or a .pt file into a checkpoint folder; which of them
follows from SOURCE. A file that another program wrote does not say what the options of its run were: give them as to
train_accelerate.py (--hidden_dim 256 ..., or --config FILE)."""


def main(arguments: Sequence[str]) -> int:
    """Convert one checkpoint."""
    parser = argparse.ArgumentParser(
        prog="python -m protein_model convert",
        description=DESCRIPTION,
        usage="%(prog)s [-h] [--shards V] SOURCE TARGET [options of train_accelerate.py]",
        allow_abbrev=False,
    )
    parser.add_argument("source", metavar="SOURCE", type=Path, help="checkpoint folder, or .pt file")
    parser.add_argument("target", metavar="TARGET", type=Path, help="what it becomes; must not exist yet")
    parser.add_argument(
        "--shards",
        metavar="V",
        type=int,
        default=1,
        help="for a file of another program: micro-batches per optimizer step of the run that will go on with it, on "
        "any number of processes that divides V [1]",
    )
    options, for_training = parser.parse_known_args(arguments)

    from ..errors import UserError
    from ..training.arguments import parse_options
    from ..training.checkpoints import LOCK_FILE, CheckpointStore
    from ..training.interchange import export_checkpoint, import_checkpoint

    source, target = options.source, options.target
    if options.shards < 1:
        raise UserError(f"--shards must be at least 1, but is {options.shards}")
    if not source.exists():
        raise UserError(f"{source}: there is no such file or folder")
    if source.is_dir():
        if for_training:
            raise UserError(f"{' '.join(for_training)}: a checkpoint folder knows its options, give none")
        export_checkpoint(source, target)
    else:
        if target.exists():
            raise UserError(f"{target}: exists already; give another name, or move it away")
        store = CheckpointStore(target.parent)
        if (target.parent / LOCK_FILE).exists():  # a run may be at work there
            store.lock(print)
        done = import_checkpoint(source, parse_options(for_training), options.shards, target.parent, target.name)
        for note in done.notes:
            print(f"WARNING: {source}: {note}", file=sys.stderr)
    print(target)
    return 0
