"""Design for many structure files: inputs, output folder, what is done already, the table over all.

One output folder is one run with one choice of settings, which `run.json` records. Nothing in it is ever overwritten:
the same command goes on where it was stopped, another one is refused. Every input has a FASTA file, written at once
when the input is finished, and the table is made from these files at the end. An input that cannot be used is named in
the table and does not stop the others.
"""

from __future__ import annotations

import contextlib
import csv
import difflib
import hashlib
import io
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..errors import UserError, in_words
from ..model.modeling import ProteinModel
from ..structures import Structure, read_structure, structure_name, write_fasta, write_structure
from ..wording import counted
from .constraints import ALL_INPUTS, Constraints, DesignPlan, constraints_from, design_plan
from .design import DesignResult, refuse_nothing_to_design
from .records import DesignRecord, native_record, plain_row, read_designs
from .sampling import Sampler, SamplingError, SamplingSettings, Steps, max_residues

RUN_FILE, TABLE_CSV, TABLE_JSON = "run.json", "designs.csv", "designs.json"
STRUCTURES_FOLDER, PICTURES_FOLDER = "structures", "pictures"
_COLUMNS = ("input", "fasta", *[entry.name for entry in fields(DesignRecord)], "error")


class OutputError(UserError, ValueError):
    """The output folder holds something else, or cannot be written in."""


@dataclass(frozen=True)
class RunSettings:
    """One run of design over many inputs; part of the output.

    Attributes
    ----------
    model : name of the model
    model_digest : of its files, from `which_model`
    num_sequences : samples for each input and temperature
    temperatures : each is sampled from
    num_steps, order, remask, seed : as in `sampling.SamplingSettings`, as they are for the model
    structures : "pdb" or "cif" for files with the designed sequences on the given backbones, None for none
    pictures : draw a picture for each input

    Raises
    ------
    SamplingError : a setting is out of its range
    """

    model: str
    model_digest: str
    num_sequences: int
    temperatures: tuple[float, ...]
    num_steps: Steps
    order: str | None
    remask: float
    seed: int
    structures: str | None = None
    pictures: bool = False

    def __post_init__(self) -> None:
        if self.num_sequences < 1:
            raise SamplingError(f"--num_sequences must be at least 1, but is {self.num_sequences}")
        if len(set(self.temperatures)) < len(self.temperatures):
            raise SamplingError(f"--temperature {' '.join(map(str, self.temperatures))}: one is there twice")

    def sampling(self, temperature: float) -> SamplingSettings:
        """Settings of one temperature."""
        return SamplingSettings(temperature, self.num_steps, self.order, self.remask, self.seed)


@dataclass(frozen=True)
class DesignInput:
    """One file to design for.

    Attributes
    ----------
    path : the file
    stem : name of its outputs, without ending; distinct among the inputs of a run
    constraints : their names and values, as in a constraints file
    problem : why there is nothing to read at `path`, where that is known; empty where it is not
    """

    path: Path
    stem: str
    constraints: Mapping[str, Any]
    problem: str = ""

    @property
    def digest(self) -> str:
        """Of the file and the constraints: all of the input that a design depends on."""
        told = json.dumps(self.constraints, sort_keys=True).encode()
        return hashlib.blake2b(self.path.read_bytes() + b"\0" + told, digest_size=8).hexdigest()


@dataclass(frozen=True)
class Failure:
    """An input that could not be designed for, with the reason."""

    path: str
    error: str


def design_inputs(
    files: Sequence[Path],
    for_all: Mapping[str, Any],
    by_name: Mapping[str, Mapping[str, Any]],
    problems: Mapping[Path, str] = MappingProxyType({}),
) -> list[DesignInput]:
    """Inputs with their constraints.

    Parameters
    ----------
    files : structure files
    for_all : constraints on every input
    by_name : contents of a constraints file; its entry for an input counts more than its entry `*`, and that more than
        `for_all`, name by name
    problems : of those files that there is nothing to read at, as `structures.missing_files` gives them

    Raises
    ------
    UserError : `by_name` names an input that there is not
    """
    names = [structure_name(file) for file in files]
    for name in by_name:
        if name != ALL_INPUTS and name not in names:
            near = difflib.get_close_matches(name, names, n=3, cutoff=0.3) or names[:3]
            raise UserError(f"--constraints: there is no input {name!r}; the nearest are {', '.join(near)}")
    stems = output_names(files)
    common = {**for_all, **by_name.get(ALL_INPUTS, {})}
    return [
        DesignInput(file, stem, {**common, **by_name.get(name, {})}, problems.get(file, ""))
        for file, name, stem in zip(files, names, stems, strict=True)
    ]


def output_names(files: Sequence[Path]) -> list[str]:
    """Names for outputs: those of the files, with folder and ending where two would be the same.

    Raises
    ------
    UserError : two names cannot be told apart even so
    """
    names = [structure_name(file) for file in files]
    if len({name.lower() for name in names}) == len(names):
        return names
    # Links are not followed: several may lead to one file, or to nothing.
    absolute = [Path(os.path.abspath(file)) for file in files]
    shared = Path(os.path.commonpath([file.parent for file in absolute]))
    whole = ["__".join(file.relative_to(shared).parts) for file in absolute]
    again = [name.lower() for name in names]
    stems = [long if again.count(name.lower()) > 1 else name for name, long in zip(names, whole, strict=True)]
    if len({stem.lower() for stem in stems}) < len(stems):
        raise UserError("two inputs are the same file, or their names differ in upper and lower case only")
    return stems


def largest_first(inputs: Sequence[DesignInput]) -> list[DesignInput]:
    """Inputs by size of their files, so that processes that take them in turn have about equal work."""
    return sorted(inputs, key=lambda entry: entry.path.stat().st_size if entry.path.is_file() else 0, reverse=True)


def open_output(folder: Path, settings: RunSettings, create: bool) -> None:
    """Make sure that an output folder is new or belongs to the same run.

    Parameters
    ----------
    create : make the folder and `run.json` where they are missing; one process does

    Raises
    ------
    OutputError : it holds the results of another run, or other files; the message says what differs
    """
    path = folder / RUN_FILE
    document = json.loads(json.dumps(asdict(settings)))
    if path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))["settings"]
        except (ValueError, KeyError, TypeError) as error:
            raise OutputError(f"{path}: cannot be read ({error}); choose another --out_dir") from error
        differing = [name for name in {**document, **found} if document.get(name) != found.get(name)]
        if differing:
            changes = ", ".join(f"{name} was {found.get(name)}, is {document.get(name)}" for name in differing)
            raise OutputError(
                f"--out_dir {folder}: holds designs of another run ({changes}); nothing is overwritten, "
                "choose another folder"
            )
    elif folder.is_dir() and any(folder.glob("*.fasta")):
        raise OutputError(f"--out_dir {folder}: holds FASTA files of something else; choose another folder")
    elif create:
        make_output_folder(folder)
        write_text(path, json.dumps({"settings": document}, indent=1))


def make_output_folder(folder: Path) -> None:
    """Make a folder for results, if it is not there, and see that it can be written in.

    Raises
    ------
    OutputError : it cannot; the message says why
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass  # permissions do not tell: the file system may be read-only
    except OSError as error:
        raise OutputError(
            f"--out_dir {folder}: no folder that results can be written to ({error.strerror}); choose another"
        ) from error


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path to write to, that becomes `path`; where writing fails, nothing is left.

    Raises
    ------
    OutputError : the operating system refuses; it does not always say itself which file it is about
    """
    temporary = path.with_name(f".{os.getpid()}.{path.name}")  # its ending may say what to write
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def run_designs(
    model: ProteinModel,
    inputs: Sequence[DesignInput],
    settings: RunSettings,
    folder: Path,
    advance: Callable[[DesignInput, str, bool], object] = lambda entry, text, failed: None,
) -> list[Failure]:
    """Design for every input that has no FASTA file yet; structures of any lengths are computed together.

    Parameters
    ----------
    model : in evaluation mode
    folder : from `open_output`
    advance : called for every input when it is finished, with a line about it and whether it failed

    Returns
    -------
    inputs that could not be designed for
    """
    failures: list[Failure] = []

    def fail(entry: DesignInput, error: Exception) -> None:
        reason = in_words(error)
        failures.append(Failure(str(entry.path), reason))
        advance(entry, reason if str(entry.path) in reason else f"{entry.path}: {reason}", True)

    for batch in _batches(inputs, settings, folder, max_residues(next(model.parameters()).device), fail, advance):
        sampler = Sampler(model, [job.structure for job in batch], [job.plan for job in batch])
        results: list[list[DesignResult]] = [[] for _ in batch]
        for temperature in batch[0].temperatures:
            how = settings.sampling(temperature)
            for job, result, designs in zip(batch, results, sampler.sample(settings.num_sequences, how), strict=True):
                result.append(DesignResult(job.structure, job.plan, how, designs))
        for job, result in zip(batch, results, strict=True):
            try:
                _write(job.entry, result, settings, folder)
            except OSError as error:
                fail(job.entry, OutputError(f"{folder}: cannot be written to: {error.strerror or error}"))
            except UserError as error:
                fail(job.entry, error)
            else:
                advance(job.entry, _summary(job.entry, result), False)
    return failures


@dataclass(frozen=True, eq=False)
class _Job:
    entry: DesignInput
    structure: Structure
    plan: DesignPlan
    temperatures: tuple[float, ...]


def _batches(
    inputs: Sequence[DesignInput],
    settings: RunSettings,
    folder: Path,
    limit: int,
    fail: Callable[[DesignInput, Exception], None],
    advance: Callable[[DesignInput, str, bool], object],
) -> Iterator[list[_Job]]:
    """Jobs with the same temperatures, of at most `limit` residues together or one alone."""
    waiting: dict[tuple[float, ...], list[_Job]] = {}
    for entry in inputs:
        try:
            if entry.problem:
                raise UserError(entry.problem)
            if _is_done(entry, folder):
                advance(entry, f"{entry.path}: designed before", False)
                continue
            job = _job(entry, settings)
        except (UserError, OSError) as error:
            fail(entry, error)
            continue
        batch = waiting.setdefault(job.temperatures, [])
        if batch and sum(len(other.structure) for other in batch) + len(job.structure) > limit:
            yield batch
            batch = waiting[job.temperatures] = []
        batch.append(job)
    yield from (batch for batch in waiting.values() if batch)


def _is_done(entry: DesignInput, folder: Path) -> bool:
    path = fasta_path(entry, folder)
    if not path.is_file():
        return False
    natives, _ = read_designs(path)
    if natives.get("input") != entry.digest:
        raise OutputError(
            f"{path} was made from another file or with other constraints; nothing is overwritten, choose another "
            "--out_dir"
        )
    return True


def _job(entry: DesignInput, settings: RunSettings) -> _Job:
    constraints: Constraints = constraints_from(entry.constraints, f"{structure_name(entry.path)}: ")
    structure = read_structure(entry.path)
    plan = design_plan(structure, constraints)
    refuse_nothing_to_design(structure, plan)
    own = constraints.temperature
    return _Job(entry, structure, plan, settings.temperatures if own is None else (own,))


def fasta_path(entry: DesignInput, folder: Path) -> Path:
    """Where the designs for an input are."""
    return folder / f"{entry.stem}.fasta"


def _write(entry: DesignInput, results: Sequence[DesignResult], settings: RunSettings, folder: Path) -> None:
    if settings.structures is not None:
        (folder / STRUCTURES_FOLDER).mkdir(exist_ok=True)
        for result in results:
            for sample in range(len(result)):
                name = f"{entry.stem}_T{result.settings.temperature:g}_{sample + 1}.{settings.structures}"
                with written_whole(folder / STRUCTURES_FOLDER / name) as temporary:
                    write_structure(result.designed_structure(sample), temporary)
    if settings.pictures:
        from .pictures import draw_designs

        (folder / PICTURES_FOLDER).mkdir(exist_ok=True)
        for result in results:
            name = f"{entry.stem}_T{result.settings.temperature:g}.png"
            draw_designs(folder / PICTURES_FOLDER / name, result)
    # The FASTA file last: it says that the input is finished.
    records = [native_record(results[0].structure, input=entry.digest)]
    records += [(record.header, record.sequence) for result in results for record in result.records(settings.model)]
    path = fasta_path(entry, folder)
    with written_whole(path) as temporary:
        write_fasta(temporary, records)


def _summary(entry: DesignInput, results: Sequence[DesignResult]) -> str:
    score = sum(float(result.scores.mean()) for result in results) / len(results)
    share = sum(float(result.recovery.mean()) for result in results) / len(results)
    agreement = "no native sequence to compare with" if math.isnan(share) else f"mean recovery {100 * share:.1f} %"
    designed = int(results[0].plan.designed.sum())
    total = len(results[0].structure)
    return (
        f"{entry.path}: {designed:,} of {counted(total, 'residue')} designed, mean score {score:.3f} nats/residue, "
        f"{agreement}"
    )


def write_table(
    inputs: Sequence[DesignInput], failures: Sequence[Failure], settings: RunSettings, folder: Path
) -> list[dict[str, Any]]:
    """Write the table over all inputs, one row for each design or failure, as CSV and JSON.

    Returns
    -------
    the rows
    """
    reasons = {failure.path: failure.error for failure in failures}
    rows: list[dict[str, Any]] = []
    for entry in inputs:
        place: dict[str, Any] = {"input": str(entry.path)}
        if str(entry.path) in reasons:
            rows.append({**place, "name": structure_name(entry.path), "error": reasons[str(entry.path)]})
            continue
        path = fasta_path(entry, folder)
        rows += [{**place, "fasta": path.name, **plain_row(record)} for record in read_designs(path)[1]]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / TABLE_CSV, text.getvalue())
    document = {"settings": asdict(settings), "inputs": len(inputs), "failed": len(reasons), "designs": rows}
    write_text(folder / TABLE_JSON, json.dumps(document, indent=1, allow_nan=False))
    return rows
