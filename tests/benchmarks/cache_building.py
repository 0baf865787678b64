"""Speed of building a cache: reading with gemmi against the same pipeline reading with Biopython.

    python tests/benchmarks/cache_building.py FOLDER [--every K] [--num_workers N]

Both builds find, hash, read and write the same files in the same number of worker processes; only the function that
reads a file differs (the Biopython one is that of tests/structures/biopython_oracle.py). What is timed is
`build_cache`, from an empty folder to the opened cache, start of the workers included. Unusable files count for both.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # before NumPy is loaded
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

# Python runs a module of this name when it starts, so that the builder's workers read with Biopython too.
READ_WITH_BIOPYTHON = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import protein_model.data.shards as shards
from tests.benchmarks.cache_building import read_as_structure
shards.read_structure = read_as_structure
"""


def read_as_structure(path: str):
    """A `Structure` read by Biopython.

    The size of a gap counts as one residue, as the oracle says only which neighbours are bonded.
    """
    import numpy as np

    from protein_model.structures import Structure, StructureError, structure_name
    from tests.structures.biopython_oracle import read_with_biopython

    try:
        read = read_with_biopython(Path(path))
    except Exception as error:
        raise StructureError(path, f"Biopython cannot read it: {error}") from error
    values = {name: value for name, value in vars(read).items() if name not in ("label", "bonded")}
    steps = np.where(read.bonded, 1, 2)
    position = np.concatenate([[0], np.cumsum(steps)]).astype(np.int32)
    return Structure(name=structure_name(path), position=position, **values)


def main() -> None:
    """Build twice and print both speeds and their ratio."""
    parser = argparse.ArgumentParser(description="Time building a cache with gemmi and with Biopython.")
    parser.add_argument("folder", type=Path, help="folder of structure files")
    parser.add_argument("--every", type=int, default=1, help="use every K-th file only")
    parser.add_argument("--num_workers", type=int, default=2, help="reading processes [2]")
    parser.add_argument("--build", metavar="CACHE_DIR", type=Path, help=argparse.SUPPRESS)  # one of the two builds
    options = parser.parse_args()
    if options.build:
        build(options.folder, options.build, options.num_workers)
        return

    from protein_model.structures import find_structure_files

    paths = find_structure_files(options.folder)[:: options.every]
    with tempfile.TemporaryDirectory() as scratch:
        listed = Path(scratch, "files.txt")
        listed.write_text("".join(f"{path.resolve()}\n" for path in paths))
        hook = Path(scratch, "hook")
        hook.mkdir()
        (hook / "sitecustomize.py").write_text(READ_WITH_BIOPYTHON)
        for path in paths:
            path.read_bytes()  # from now on no build has to wait for the disk
        results = {}
        for reader, python_path in (("gemmi", ""), ("Biopython", str(hook))):
            command = [sys.executable, __file__, str(listed), "--build", str(Path(scratch, reader))]
            command += ["--num_workers", str(options.num_workers)]
            output = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": python_path}
            )
            results[reader] = json.loads(output.stdout)
    slow, fast = results["Biopython"], results["gemmi"]
    same = slow["sequences"] == fast["sequences"]
    agreement = "the same sequences" if same else "DIFFERENT SEQUENCES"
    print(f"{len(paths):,} files, {options.num_workers} worker processes; both readers give {agreement}")
    print(f"{'reader':12}{'structures':>11}{'residues':>10}{'seconds':>9}{'files/s':>9}{'residues/s':>12}{'ratio':>7}")
    for reader, result in results.items():
        seconds = result["seconds"]
        print(
            f"{reader:12}{result['structures']:11,}{result['residues']:10,}{seconds:9.2f}{len(paths) / seconds:9.1f}"
            f"{result['residues'] / seconds:12,.0f}{slow['seconds'] / seconds:7.1f}"
        )


def build(listed: Path, cache_dir: Path, num_workers: int) -> None:
    """Build one cache and print what it took as JSON."""
    from protein_model.data.cache import build_cache

    start = time.perf_counter()
    cache = build_cache(listed, cache_dir, num_workers=num_workers, progress=False)
    seconds = time.perf_counter() - start
    text = "\n".join(cache.sequence(row) for row in range(len(cache)))
    print(
        json.dumps(
            {
                "structures": len(cache),
                "residues": int(cache.lengths.sum()),
                "seconds": seconds,
                "sequences": hashlib.sha256(text.encode()).hexdigest(),
            }
        )
    )


if __name__ == "__main__":
    main()
