"""`python -m protein_model design`: structure files -> FASTA files, a table, structures and pictures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..which_model import find_model, model_digest
from ..wording import counted
from .constraint_options import OptionError, add_design_options, add_selection_options, given_constraints
from .model_option import add_model_option

if TYPE_CHECKING:
    from ..inference.sampling import Steps

ORDERS = ("ancestral", "random", "confidence", "margin")


def main(arguments: Sequence[str]) -> int:
    """Design sequences for structures: one FASTA file each, and a table over all."""
    options = _parser().parse_args(arguments)

    from tqdm import tqdm

    from ..data.progress import Progress
    from ..inference.constraints import read_constraints_file
    from ..inference.design import load_model
    from ..inference.folders import (
        TABLE_CSV,
        DesignInput,
        RunSettings,
        design_inputs,
        largest_first,
        open_output,
        run_designs,
        write_table,
    )
    from ..inference.processes import Processes
    from ..inference.sampling import SamplingSettings, settings_for
    from ..structures import find_structure_files, missing_files

    folder = find_model(options.model)
    asked = [
        SamplingSettings(temperature, _steps(options), options.order, options.remask, options.seed)
        for temperature in options.temperature
    ]
    by_name = {} if options.constraints is None else read_constraints_file(options.constraints)
    inputs = design_inputs(
        find_structure_files(options.pdb_path), given_constraints(options), by_name, missing_files(options.pdb_path)
    )
    processes = Processes()
    model = load_model(folder, processes.device)
    sampling = [settings_for(model, how) for how in asked]
    settings = RunSettings(
        model=folder.resolve().name,
        model_digest=model_digest(folder),
        num_sequences=options.num_sequences,
        temperatures=tuple(options.temperature),
        num_steps=sampling[0].num_steps,
        order=sampling[0].order,
        remask=options.remask,
        seed=options.seed,
        structures=options.write_structures,
        pictures=options.plot,
    )
    open_output(options.out_dir, settings, create=False)
    processes.wait()  # all have looked before one begins to write
    if processes.first:
        open_output(options.out_dir, settings, create=True)
    processes.wait()

    own = processes.share(largest_first(inputs))
    progress = Progress(processes.first, "designing")
    progress.start(len(own), "structure")

    def done(entry: DesignInput, text: str, failed: bool) -> None:
        progress.advance()
        tqdm.write(f"WARNING: {text}" if failed else text, file=sys.stderr if failed else sys.stdout)

    failures = processes.gather(run_designs(model, own, settings, options.out_dir, done))
    progress.close()
    if processes.first:
        write_table(inputs, failures, settings, options.out_dir)
        print(
            f"{options.out_dir / TABLE_CSV}: {len(inputs) - len(failures):,} of "
            f"{counted(len(inputs), 'structure')} designed"
            + (f", {len(failures):,} not, for the reasons given there" if failures else "")
        )
    processes.close()
    return 1 if failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m protein_model design", description=main.__doc__)
    add_model_option(parser)
    parser.add_argument(
        "--pdb_path", type=Path, required=True, help="PDB / mmCIF file, folder of them, or text file of paths"
    )
    parser.add_argument(
        "--out_dir", type=Path, required=True,
        help="folder for the results of one run; the same command goes on where it was stopped, nothing is overwritten",
    )  # fmt: skip
    sampling = parser.add_argument_group("sampling")
    sampling.add_argument("--num_sequences", type=int, default=8, help="per structure and temperature [8]")
    sampling.add_argument(
        "--temperature", type=float, nargs="+", default=[0.1],
        help="one or several; 0 takes the most probable residues [0.1]",
    )  # fmt: skip
    sampling.add_argument("--num_steps", default="8", help="denoising steps, L for one residue at a time [8]")
    sampling.add_argument(
        "--order", choices=ORDERS, default=None,
        help="of residues: drawn as the model has it, in equal random shares, most probable first, or best ahead of "
        "second best first [margin]",
    )  # fmt: skip
    sampling.add_argument(
        "--remask", type=float, default=0.0, metavar="SHARE",
        help="share of the residues, the least probable ones, that are chosen again at the end [0]",
    )  # fmt: skip
    sampling.add_argument("--seed", type=int, default=0, help="same seed, same sequences [0]")
    constraints = parser.add_argument_group(
        "constraints", "residues are named by author chain, number and insertion code: A, A12, A12B, A12-20"
    )
    add_selection_options(constraints)
    add_design_options(constraints)
    constraints.add_argument(
        "--constraints", type=Path, metavar="JSON",
        help='all of these for each input by name, "*" for all: {"1abc": {"fixed": "A12-20", "omit": "C"}}',
    )  # fmt: skip
    output = parser.add_argument_group("further output")
    output.add_argument(
        "--write_structures", choices=("pdb", "cif"), default=None,
        help="the backbones with the designed sequences, confidence in percent as B-factor",
    )  # fmt: skip
    output.add_argument("--plot", action="store_true", help="a sequence logo and heat map for each structure")
    return parser


def _steps(options: argparse.Namespace) -> Steps:
    if options.num_steps.upper() == "L":
        return "L"
    if not options.num_steps.isdecimal():
        raise OptionError(f"--num_steps {options.num_steps}: must be a number of at least 1, or L")
    return int(options.num_steps)
