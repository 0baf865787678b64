"""`python -m protein_model evaluate`: structures with known sequences, a model or designs -> figures and pictures."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.addresses import data_path, is_address
from ..errors import in_words
from ..which_model import find_model, model_digest
from .design import ORDERS
from .model_option import add_model_option

if TYPE_CHECKING:
    from ..inference.evaluation import Advance, Evaluated
    from ..inference.processes import Processes
    from ..inference.step_sweep import StepFigures
    from ..structures import Structure

JSON_FILE = "evaluation.json"
STEPS_PICTURE = "steps.png"
LIST_ENDINGS = (".json", ".jsonl")


def main(arguments: Sequence[str]) -> int:
    """Measure how well a model, or the designs of any tool, agree with native sequences."""
    options = _parser().parse_args(arguments)

    from ..inference.evaluation import EvaluationError
    from ..inference.folders import make_output_folder
    from ..inference.metrics import scored_residues
    from ..inference.peer_designs import match_designs
    from ..inference.processes import Processes

    if options.designs is not None and (options.steps, options.orders, options.split) != (None, None, None):
        raise EvaluationError("--steps, --orders and --split go with --model, not with --designs")
    folder = find_model(options.model) if options.designs is None else None
    structures, problems = _structures(options, folder)
    for structure in structures:
        if not scored_residues(structure).any():
            problems.append(f"{structure.name}: no residue has both a complete backbone and a known type")
    structures = [structure for structure in structures if scored_residues(structure).any()]
    if not structures:
        raise EvaluationError(f"there is nothing to evaluate on: {problems[0] if problems else 'no structure'}")
    told = ("model" if options.designs is None else "designs", "pdb_path", "split", "seed")
    used: dict[str, Any] = {name: getattr(options, name) for name in told}
    steps: list[StepFigures] = []
    processes = Processes()
    if processes.first and options.out_dir is not None:
        make_output_folder(options.out_dir)  # before the work, which would be lost without it
    if folder is None:
        entries, unmatched = match_designs(options.designs, structures)
        problems += unmatched
    else:
        entries, steps, settings = _run_model(options, folder, structures, processes)
        used |= settings
    if processes.first:
        _tell(entries, steps, used, problems, options)
    processes.close()
    return 1 if problems else 0


def _tell(
    entries: Sequence[Evaluated],
    steps: list[StepFigures],
    used: dict[str, Any],
    problems: list[str],
    options: argparse.Namespace,
) -> None:
    """Print figures, and write them and the pictures where that is asked for."""
    from ..inference.evaluation_plots import draw_report, draw_steps
    from ..inference.evaluation_report import build_report, plain
    from ..inference.evaluation_tables import report_text, steps_text
    from ..inference.folders import write_text

    for problem in problems:
        print(f"WARNING: {problem}", file=sys.stderr)
    report = build_report(entries, options.seed)
    used = {name: str(value) if isinstance(value, Path) else value for name, value in used.items() if value is not None}
    print(" · ".join(f"{name} {value}" for name, value in used.items()))
    print(report_text(report))
    if steps:
        print(f"\n{steps_text(steps)}")
    if options.out_dir is not None:
        document = {"settings": used, **plain(report), "steps": plain(steps), "unusable": problems}
        path = options.out_dir / JSON_FILE
        write_text(path, json.dumps(document, indent=1, allow_nan=False))
        written = [path, *draw_report(options.out_dir, report)]
        if steps:
            written.append(draw_steps(options.out_dir / STEPS_PICTURE, steps))
        print("\n" + "\n".join(map(str, written)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m protein_model evaluate", description=main.__doc__)
    what = parser.add_mutually_exclusive_group()
    add_model_option(what)
    what.add_argument(
        "--designs",
        type=Path,
        help="FASTA file, or folder of them, with the designs of any tool, ProteinMPNN's included",
    )
    parser.add_argument(
        "--pdb_path",
        type=data_path,
        help="structures with native sequences: PDB / mmCIF file, folder, text file of paths, JSON list such as TS50, "
        "chain_set.jsonl, or finished cache; with --split, by default the data of the run, and an address will do",
    )
    parser.add_argument(
        "--split", choices=("train", "validation", "test"), help="that part of the run's split that --model is from"
    )
    parser.add_argument("--out_dir", type=Path, help="folder for evaluation.json and the pictures")
    parser.add_argument("--num_sequences", type=int, default=4, help="samples per structure, 0 for none [4]")
    parser.add_argument("--temperature", type=float, default=0.1, help="of sampling [0.1]")
    parser.add_argument("--num_steps", default="8", help="denoising steps of sampling, L for one residue at a time [8]")
    parser.add_argument("--order", choices=ORDERS, help="of sampling, see design --help [margin]")
    parser.add_argument("--num_orders", type=int, default=8, help="draws for the order-agnostic perplexity [8]")
    parser.add_argument(
        "--steps", help="also a table and a picture by number of steps, such as 1,4,8,16,32,L (L: one per residue)"
    )
    parser.add_argument("--orders", help=f"the same by order, such as {','.join(ORDERS)}; with --steps, each with each")
    parser.add_argument("--seed", type=int, default=0, help="of all draws [0]")
    return parser


def _structures(options: argparse.Namespace, model: Path | None) -> tuple[list[Structure], list[str]]:
    """Structures to evaluate on, and what could not be read."""
    from ..data.cache import open_cache
    from ..data.chain_set import read_chain_list
    from ..data.sources import is_cache_folder
    from ..inference.evaluation import EvaluationError
    from ..structures import Structure, StructureError, find_structure_files, missing_files, read_structure

    if options.split is not None and model is not None:
        from ..training.saved_split import saved_part

        cache, rows = saved_part(model, options.split, options.pdb_path)
        return [cache.structure(row) for row in rows.tolist()], []
    if options.pdb_path is None:
        raise EvaluationError("give --pdb_path, or --split for the data that the model was trained on")
    if is_address(options.pdb_path):
        raise EvaluationError(
            f"--pdb_path {options.pdb_path}: fetch the cache first, by python -m protein_model cache --pdb_path "
            f"{options.pdb_path}, and give the folder that this prints"
        )
    if is_cache_folder(options.pdb_path):
        cache = open_cache(options.pdb_path)
        return [cache.structure(row) for row in range(len(cache))], []
    structures: list[Structure] = []
    problems: list[str] = []
    if options.pdb_path.name.lower().endswith(LIST_ENDINGS):
        for name, found in read_chain_list(options.pdb_path):
            if isinstance(found, Structure):
                structures.append(found)
            else:
                problems.append(f"{options.pdb_path}: {name}: {found}")
        return structures, problems
    missing = missing_files(options.pdb_path)
    for file in find_structure_files(options.pdb_path):
        if file in missing:
            problems.append(missing[file])
            continue
        try:
            structures.append(read_structure(file))
        except (StructureError, OSError) as error:
            problems.append(in_words(error))
    return structures, problems


def _run_model(
    options: argparse.Namespace, folder: Path, structures: list[Structure], processes: Processes
) -> tuple[list[Evaluated], list[StepFigures], dict[str, Any]]:
    """Predictions and designs, the rows by steps and order, and what all of them depend on."""
    from ..data.progress import Progress
    from ..inference.design import load_model
    from ..inference.evaluation import EvaluationError, EvaluationSettings, evaluate_structures
    from ..inference.sampling import settings_for
    from ..inference.step_sweep import parse_orders, parse_step_counts, step_figures, sweep_ways

    num_steps = parse_step_counts(options.num_steps, "--num_steps")
    if len(num_steps) > 1:
        raise EvaluationError(f"--num_steps {options.num_steps}: give one number here, and several as --steps")
    settings = EvaluationSettings(
        options.num_sequences, options.temperature, num_steps[0], options.order, options.num_orders, options.seed
    )
    sweep = options.steps is not None or options.orders is not None
    step_counts = num_steps if options.steps is None else parse_step_counts(options.steps)
    orders = [options.order] if options.orders is None else parse_orders(options.orders)
    if sweep and not options.num_sequences:
        raise EvaluationError("--steps and --orders are about sampling: give a --num_sequences of at least 1")
    model = load_model(folder, processes.device)
    how = settings_for(model, settings.sampling)
    ways = sweep_ways(model, settings, step_counts, orders) if sweep else []
    progress = Progress(processes.first, "evaluating")

    def start(residues: int) -> Advance:
        progress.start(residues, "residue")
        return progress.advance

    # Largest first, so that processes have about the same to do.
    own = processes.share(sorted(range(len(structures)), key=lambda index: -len(structures[index])))
    found = evaluate_structures(model, [structures[index] for index in own], settings, ways, start)
    progress.close()
    gathered = dict(processes.gather(list(zip(own, found, strict=True))))
    entries = [gathered[index] for index in range(len(structures))]
    steps = step_figures(entries, ways, settings)
    told = asdict(replace(settings, num_steps=how.num_steps, order=how.order))
    return entries, steps, {**told, "model_digest": model_digest(folder)}
