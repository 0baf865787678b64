"""Speed of reading structure files: `read_structure` (gemmi) against the same reading with Biopython, on one core.

    python tests/benchmarks/reading.py FOLDER [--every K]

Both read every file of the folder once, file by file in turn, so that a change of the machine's load meets both, and
both give the same arrays (see tests/structures/test_reading_oracle.py). Unusable files count for neither.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # before NumPy is loaded
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from protein_model.structures import StructureError, find_structure_files, read_structure  # noqa: E402
from tests.structures.biopython_oracle import read_with_biopython  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description="Time reading structure files with gemmi and with Biopython.")
    parser.add_argument("folder", type=Path, help="folder of structure files")
    parser.add_argument("--every", type=int, default=1, help="use every K-th file only")
    options = parser.parse_args()
    paths = find_structure_files(options.folder)[:: options.every]

    read_structure(paths[0])  # what is loaded and compiled once is not counted
    read_with_biopython(paths[0])
    kinds = {"PDB": [0, 0, 0.0, 0.0], "mmCIF": [0, 0, 0.0, 0.0]}
    unusable = 0
    for path in paths:
        start = time.perf_counter()
        try:
            structure = read_structure(path)
        except StructureError:
            unusable += 1
            continue
        middle = time.perf_counter()
        read_with_biopython(path)
        end = time.perf_counter()
        row = kinds["mmCIF" if "cif" in path.name.lower() else "PDB"]
        for column, value in enumerate((1, len(structure), middle - start, end - middle)):
            row[column] += value
    print(f"{unusable} unusable files left out" if unusable else "all files usable")
    print(f"{'':8}{'files':>8}{'residues':>10}{'reader':>12}{'seconds':>9}{'files/s':>9}{'residues/s':>12}{'ratio':>7}")
    rows = {kind: row for kind, row in kinds.items() if row[0]}
    rows["all"] = [sum(column) for column in zip(*rows.values(), strict=True)]
    for kind, (files, residues, gemmi_seconds, biopython_seconds) in rows.items():
        for reader, seconds in (("gemmi", gemmi_seconds), ("Biopython", biopython_seconds)):
            print(
                f"{kind:8}{files:8,}{residues:10,}{reader:>12}{seconds:9.2f}{files / seconds:9.1f}"
                f"{residues / seconds:12,.0f}{biopython_seconds / seconds:7.1f}"
            )


if __name__ == "__main__":
    main()
