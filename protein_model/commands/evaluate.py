"""`python -m protein_model evaluate`: a model and structures with known sequences -> recovery and perplexity."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path


def main(arguments: Sequence[str]) -> int:
    """Measure recovery and perplexity of a model."""
    parser = argparse.ArgumentParser(prog="python -m protein_model evaluate", description=main.__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of a trained model, such as best_model")
    parser.add_argument("--pdb_path", type=Path, required=True, help="PDB / mmCIF file, or a folder of them")
    parser.add_argument("--json", type=Path, default=None, help="file for all figures, per structure and in total")
    parser.add_argument("--num_sequences", type=int, default=4, help="samples per structure, 0 for none [4]")
    parser.add_argument("--temperature", type=float, default=0.1, help="of sampling [0.1]")
    parser.add_argument("--num_steps", type=int, default=32, help="denoising steps of sampling [32]")
    parser.add_argument("--num_orders", type=int, default=8, help="draws for the order-agnostic perplexity [8]")
    parser.add_argument("--seed", type=int, default=0, help="of all draws [0]")
    options = parser.parse_args(arguments)

    from tqdm import tqdm

    from ..inference.design import load_model
    from ..inference.evaluation import EvaluationSettings, evaluate_structures, summarise
    from ..structures import StructureError, find_structure_files, read_structure

    structures, failed = [], []
    for file in find_structure_files(options.pdb_path):
        try:
            structures.append(read_structure(file))
        except StructureError as error:
            failed.append(str(error))
            print(f"WARNING: {error}", file=sys.stderr)
    settings = EvaluationSettings(
        options.num_sequences, options.temperature, options.num_steps, options.num_orders, options.seed
    )
    model = load_model(options.model)
    with tqdm(total=len(structures), unit="structure", disable=not sys.stderr.isatty()) as bar:
        metrics = evaluate_structures(model, structures, settings, advance=bar.update)
    summary = summarise(metrics, settings)
    for name, value in summary.items():
        if name != "settings":
            print(f"{name:28s} {value:.4f}" if isinstance(value, float) else f"{name:28s} {value}")
    if options.json is not None:
        document = {"summary": summary, "structures": [asdict(entry) for entry in metrics], "unusable": failed}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(document, indent=1), encoding="utf-8")
    return 1 if failed else 0
