"""`python -m protein_model cache`: structure files -> data set."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..data.addresses import data_path, is_address

INTERRUPTED = 130  # exit status of what Ctrl-C ended, by the convention of shells


def main(arguments: Sequence[str]) -> int:
    """Build or update a cache and print what is in it."""
    parser = argparse.ArgumentParser(prog="python -m protein_model cache", description=main.__doc__)
    parser.add_argument(
        "--pdb_path",
        type=data_path,
        required=True,
        help="folder, file, text file of paths, chain_set.jsonl, or the address of a finished cache, which is fetched",
    )
    parser.add_argument("--cache_dir", type=Path, default=Path("cache"), help="where the data set goes [cache]")
    parser.add_argument("--unit", choices=("chain", "complex"), default="chain", help="what one entry is [chain]")
    parser.add_argument(
        "--min_length", type=int, default=10, help="shortest entry, residues with a complete backbone [10]"
    )
    parser.add_argument("--num_workers", type=int, default=None, help="reading processes [one per processor core]")
    options = parser.parse_args(arguments)

    from ..data.cache import CacheOptions, build_cache
    from ..data.progress import Progress

    try:
        cache = build_cache(
            options.pdb_path,
            options.cache_dir,
            CacheOptions(unit=options.unit, min_length=options.min_length),
            num_workers=options.num_workers,
        )
        if is_address(options.pdb_path):
            cache.fetch(display=Progress(True, "fetching"))
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the finished shards", file=sys.stderr)
        return INTERRUPTED
    print(cache.folder)
    return 0
