"""`python -m protein_model score`: structures and sequences -> likelihoods, probabilities, effects of mutations."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..which_model import find_model, model_digest
from ..wording import counted
from .constraint_options import OptionError, add_selection_options
from .model_option import add_model_option

if TYPE_CHECKING:
    from ..inference.score_files import ScoreSettings

LIKELIHOODS = ("order_agnostic", "one_shot", "conditional")
FORMATS = ("npy", "csv")


def main(arguments: Sequence[str]) -> int:
    """Score native or given sequences on structures: log-likelihoods by residue and in total."""
    options = _parser().parse_args(arguments)

    from ..data.progress import Progress
    from ..errors import UserError, in_words
    from ..inference.design import load_model
    from ..inference.folders import make_output_folder, output_names
    from ..inference.given_sequences import records_for
    from ..inference.processes import Processes
    from ..inference.score_files import TABLE_CSV, ScoreSettings, score_file
    from ..inference.scoring import checked_likelihood
    from ..structures import find_structure_files, missing_files, structure_name

    folder = find_model(options.model)
    if (options.out_dir / TABLE_CSV).exists():
        raise OptionError(f"--out_dir {options.out_dir}: holds scores already; nothing is overwritten, choose another")
    settings = ScoreSettings(
        options.likelihood,
        options.num_draws,
        options.fixed,
        options.designed,
        options.excluded,
        options.seed,
        tuple(options.probabilities),
        tuple(options.mutations),
    )
    files = find_structure_files(options.pdb_path)
    missing = missing_files(options.pdb_path)
    names = [structure_name(file) for file in files]
    given, problems = None, list[str]()
    if options.sequences is not None:
        given, problems = records_for(options.sequences, names)
    processes = Processes()  # all of them have looked at --out_dir by the time that they have met here
    model = load_model(folder, processes.device)
    checked_likelihood(model, settings.likelihood, settings.num_draws)  # once for all, not for each structure
    processes.wait()
    make_output_folder(options.out_dir)
    own = processes.share(list(enumerate(zip(files, names, output_names(files), strict=True))))
    results: list[tuple[int, list[dict[str, Any]], list[str]]] = []
    progress = Progress(processes.first, "scoring")
    progress.start(len(own), "structure")
    for number, (file, name, stem) in own:
        try:
            if file in missing:
                raise UserError(missing[file])
            records = None if given is None else given[name]
            results.append((number, *score_file(model, file, stem, records, settings, options.out_dir)))
        except (UserError, OSError) as error:
            reason = in_words(error)
            results.append((number, [{"input": str(file), "name": name, "error": reason}], [reason]))
        progress.advance()
    progress.close()
    results = sorted(processes.gather(results), key=lambda result: result[0])
    rows = [row for _, found, _ in results for row in found]
    problems += [text for *_, unfit in results for text in unfit]
    if processes.first:
        _tell(rows, problems, options.out_dir, settings, folder)
    processes.close()
    return 1 if problems else 0


def _tell(rows: list[dict[str, Any]], problems: list[str], out_dir: Path, settings: ScoreSettings, model: Path) -> None:
    """Write the table over all structures, and say what is in it."""
    from ..inference.score_files import TABLE_CSV, write_summary

    write_summary(out_dir, rows, settings, model.resolve().name, model_digest(model), problems)
    for problem in problems:
        print(f"WARNING: {problem}", file=sys.stderr)
    scored = [row for row in rows if "error" not in row]
    for row in scored:
        print(_line(row))
    print(f"{out_dir / TABLE_CSV}: {counted(len(scored), 'sequence')} scored, {counted(len(problems), 'problem')}")


def _line(row: dict[str, Any]) -> str:
    if not row["residues"]:
        return f"{row['name']} {row['sequence']}: no residue to score"
    error = row["standard_error"]
    spread = f" ± {error:.2f}" if error else ""
    return (
        f"{row['name']} {row['sequence']}: log-likelihood {row['total']:.2f}{spread} nats over {row['residues']:,} "
        f"residues, {row['score']:.4f} nats/residue, perplexity {row['perplexity']:.3f}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m protein_model score", description=main.__doc__)
    add_model_option(parser)
    parser.add_argument(
        "--pdb_path", type=Path, required=True, help="PDB / mmCIF file, folder of them, or text file of paths"
    )
    parser.add_argument("--out_dir", type=Path, required=True, help="folder for the tables of one run")
    parser.add_argument(
        "--sequences", type=Path,
        help="FASTA file, or folder of them; a header begins with the name of the structure, chains are separated by / "
        "[the native sequences]",
    )  # fmt: skip
    parser.add_argument(
        "--likelihood", choices=LIKELIHOODS,
        help="what the model is shown when it predicts a residue: a random part of the others, none, or all of them "
        "[order_agnostic, one_shot for models that know nothing else]",
    )  # fmt: skip
    parser.add_argument("--num_draws", type=int, default=16, help="Monte Carlo draws, for order_agnostic [16]")
    parser.add_argument("--seed", type=int, default=0, help="of the draws [0]")
    residues = parser.add_argument_group(
        "residues", "named by author chain, number and insertion code: A, A12, A12B, A12-20; what is fixed or not "
        "designed is shown and not scored"
    )  # fmt: skip
    add_selection_options(residues)
    output = parser.add_argument_group("further output, by structure")
    output.add_argument("--probabilities", choices=FORMATS, nargs="+", default=[], help="of all types at each residue")
    output.add_argument(
        "--mutations", choices=FORMATS, nargs="+", default=[],
        help="log-probability of each type minus that of the present one, in nats, at each residue",
    )  # fmt: skip
    return parser
