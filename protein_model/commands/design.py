"""`python -m protein_model design`: structure files -> FASTA files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> int:
    """Design sequences for structures, one FASTA file each."""
    parser = argparse.ArgumentParser(prog="python -m protein_model design", description=main.__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of a trained model, such as best_model")
    parser.add_argument("--pdb_path", type=Path, required=True, help="PDB / mmCIF file, or a folder of them")
    parser.add_argument("--out_dir", type=Path, required=True, help="folder for the FASTA files")
    parser.add_argument("--num_sequences", type=int, default=8, help="sequences per structure [8]")
    parser.add_argument("--temperature", type=float, default=0.1, help="0 takes the most probable residues [0.1]")
    parser.add_argument("--num_steps", type=int, default=32, help="denoising steps [32]")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same sequences [0]")
    options = parser.parse_args(arguments)

    from tqdm import tqdm

    from ..inference.design import design_file, load_model
    from ..inference.metrics import recovery
    from ..structures import StructureError, find_structure_files, read_structure

    files = find_structure_files(options.pdb_path)
    model = load_model(options.model)
    options.out_dir.mkdir(parents=True, exist_ok=True)
    failed = 0
    for file in tqdm(files, unit="file", disable=not sys.stderr.isatty()):
        try:
            structure = read_structure(file)
        except StructureError as error:
            failed += 1
            tqdm.write(f"WARNING: {error}", file=sys.stderr)
            continue
        path, designs = design_file(
            model,
            structure,
            options.out_dir,
            options.num_sequences,
            options.temperature,
            options.num_steps,
            options.seed,
            options.model.name,
        )
        share = recovery(designs.residue_type, structure).mean()
        tqdm.write(
            f"{path}  {len(structure)} residues  mean score {designs.score.mean():.3f} nats/residue  "
            f"mean recovery {100 * share:.1f} %",
            file=sys.stdout,
        )
    print(f"{len(files) - failed} of {len(files)} structures designed, {failed} unusable")
    return 1 if failed else 0
