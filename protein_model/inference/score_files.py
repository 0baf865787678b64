"""Scores of structure files as files: a table over all sequences, tables by residue, probabilities, mutations.

Columns for residue types are always in the order ACDEFGHIKLMNPQRSTVWY.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..model.modeling import ProteinModel
from ..structures import RESIDUE_LETTERS, read_structure
from .constraints import NUM_RESIDUE_TYPES, Constraints
from .folders import write_text, written_whole
from .given_sequences import types_on
from .peer_designs import Record
from .scoring import DEFAULT_DRAWS, ScoreResult, ScoringError, score_types

TABLE_CSV, TABLE_JSON = "scores.csv", "scores.json"
LETTERS = RESIDUE_LETTERS[:NUM_RESIDUE_TYPES]
_SUMMARY = (
    "input", "name", "sequence", "header", "likelihood", "draws", "residues", "total", "standard_error", "score",
    "perplexity", "letters", "error",
)  # fmt: skip
_PLACE = ("sequence", "chain", "number", "insertion_code", "residue")


@dataclass(frozen=True)
class ScoreSettings:
    """How sequences are scored, and what is written; part of the output.

    Attributes
    ----------
    likelihood, num_draws, seed : as of `scoring.score`
    fixed, designed, excluded : selections, as of `Constraints`
    probabilities, mutations : formats, "npy" and "csv", in which these are written
    """

    likelihood: str | None = None
    num_draws: int = DEFAULT_DRAWS
    fixed: str = ""
    designed: str = ""
    excluded: str = ""
    seed: int = 0
    probabilities: tuple[str, ...] = ()
    mutations: tuple[str, ...] = ()


def score_file(
    model: ProteinModel, path: Path, stem: str, records: Sequence[Record] | None, settings: ScoreSettings, folder: Path
) -> tuple[list[dict[str, Any]], list[str]]:
    """Score sequences on the structure of a file, and write what belongs to that structure.

    Parameters
    ----------
    model : in evaluation mode
    path : structure file
    stem : name of its outputs, without ending
    records : sequences; None for the native one
    folder : of the outputs

    Returns
    -------
    a row of the table for each sequence · one line for each sequence that does not fit

    Raises
    ------
    UserError, OSError : the structure cannot be used
    """
    structure = read_structure(path)
    headers, types, problems = ["native"], structure.residue_type[None], list[str]()
    if records is not None:
        headers, types, problems = types_on(records, structure)
        if not len(types):
            raise ScoringError(f"{path}: none of the given sequences is for it" + "".join(f"; {p}" for p in problems))
    constraints = Constraints(fixed=settings.fixed, designed=settings.designed, excluded=settings.excluded)
    result = score_types(model, structure, types, settings.likelihood, settings.num_draws, constraints, settings.seed)
    write_residues(folder / f"{stem}_residues.csv", result)
    for ending in settings.probabilities:
        write_matrix(folder / f"{stem}_probabilities.{ending}", result, result.probabilities)
    for ending in settings.mutations:
        write_matrix(folder / f"{stem}_mutations.{ending}", result, result.log_ratios)
    return _summary_rows(result, path, headers), problems


def _summary_rows(result: ScoreResult, path: Path, headers: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each sequence: log-likelihood in nats, its standard error, nats per residue, perplexity."""
    rows = []
    for index, letters in enumerate(result.sequences):
        figures = {
            "total": result.total[index],
            "standard_error": result.standard_error[index],
            "score": result.score[index],
            "perplexity": result.perplexity[index],
        }
        rows.append(
            {
                "input": str(path),
                "name": result.structure.name,
                "sequence": index + 1,
                "header": headers[index],
                "likelihood": result.likelihood,
                "draws": result.draws,
                "residues": int(result.scored[index].sum()),
                **{name: None if math.isnan(value) else float(value) for name, value in figures.items()},
                "letters": letters,
            }
        )
    return rows


def write_summary(
    folder: Path,
    rows: Sequence[dict[str, Any]],
    settings: ScoreSettings,
    model_name: str,
    model_digest: str,
    problems: Sequence[str],
) -> None:
    """`scores.csv` and `scores.json`."""
    write_text(folder / TABLE_CSV, _csv(_SUMMARY, ([row.get(name) for name in _SUMMARY] for row in rows)))
    told = {"model": model_name, "model_digest": model_digest, **asdict(settings)}
    document = {"settings": told, "sequences": list(rows), "problems": list(problems)}
    write_text(folder / TABLE_JSON, json.dumps(document, indent=1, allow_nan=False))


def write_residues(path: Path, result: ScoreResult) -> None:
    """Nats of each residue of each sequence as CSV; empty where not scored."""
    rows = ([*place, _number(result.log_probability[index, row])] for index, row, place in _places(result))
    write_text(path, _csv((*_PLACE, "log_probability"), rows))


def write_matrix(path: Path, result: ScoreResult, values: np.ndarray) -> None:
    """(S, L, 20) values as NumPy array (`.npy`, NaN where not scored), or as CSV with a row for each scored residue."""
    if path.suffix == ".npy":
        with written_whole(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, values.astype(np.float32))
        return
    rows = (
        [*place, *map(_number, values[index, row].tolist())]
        for index, row, place in _places(result)
        if result.scored[index, row]
    )
    write_text(path, _csv((*_PLACE, *LETTERS), rows))


def _places(result: ScoreResult) -> Iterable[tuple[int, int, list[Any]]]:
    structure = result.structure
    for index in range(len(result)):
        for row in range(len(structure)):
            yield index, row, [
                index + 1,
                structure.chain_ids[structure.chain_index[row]],
                int(structure.residue_number[row]),
                str(structure.insertion_code[row]).strip(),
                RESIDUE_LETTERS[result.residue_type[index, row]],
            ]  # fmt: skip


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"


def _csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()
