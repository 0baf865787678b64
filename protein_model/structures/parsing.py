"""Content of a PDB or mmCIF file -> gemmi's structure of the first model, after checks that gemmi does not make.

gemmi is lenient where a file is damaged: coordinates that are no numbers become 0, a cut last line gets default values.
Here such a file is refused. Which residues and atoms are used is decided in `reading`.
"""

from __future__ import annotations

import re
from pathlib import Path

import gemmi
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .errors import StructureError

# A model ends with ENDMDL; files without it begin the next one with MODEL. gemmi and Bio.PDB both stop at END.
_MODEL_ENDS = (b"ENDMDL", b"MODEL ")
_COORDINATE_COLUMNS = slice(30, 54)
_NUMBER_COLUMNS = slice(22, 26)
_END_OF_B_FACTOR = 66
# The wwPDB and many programs close every table by a line "#", the one before the table of atoms too.
_TABLES_CLOSED = re.compile(rb"^#[ \t\r]*\n\s*loop_\s+_atom_site\.", re.MULTILINE)
_RECORD_LETTERS = 4  # as gemmi looks at: serial numbers beyond 99,999 may reach into columns 5 and 6
_ATOM_LETTERS = np.array([list(b"ATOM"), list(b"HETA")], np.uint8)


def parse_pdb(path: Path, content: bytes, split_at_ter: bool = False) -> gemmi.Structure:
    """The first model of a PDB file.

    Parameters
    ----------
    path : the file, for messages
    content : all of its text, UTF-8
    split_at_ter : keep what TER records separate apart, in chains of the same name

    Raises
    ------
    StructureError : there are no atoms; a line is cut off, or has a coordinate or residue number that is none
    """
    if not content.isascii():
        # One byte per character, so that columns stay where they are; only headers have such characters.
        content = content.decode("utf-8").encode("ascii", "replace")
    starts, ends, end = _atom_lines(content)
    if not len(starts):
        raise StructureError(path, "no atoms: there are neither PDB ATOM records nor an mmCIF _atom_site table")
    _check_atom_lines(path, content, starts, ends)
    if end is not None:
        content = content[:end]
    try:
        parsed = gemmi.read_pdb_string(content, split_chain_on_ter=split_at_ter)
    except (RuntimeError, ValueError) as error:
        raise StructureError(path, f"not a readable PDB file: {_one_line(error)}") from error
    if not split_at_ter:
        parsed.merge_chain_parts()
    return _with_first_model_only(path, parsed)


def parse_mmcif(path: Path, content: bytes) -> gemmi.Structure:
    """The first model of an mmCIF file: of the first data block that has atoms.

    Raises
    ------
    StructureError : there are no atoms, the text is cut off, or it does not obey the syntax
    """
    try:
        document = gemmi.cif.read_string(content)
        block = next((block for block in document if block.find_loop("_atom_site.Cartn_x")), None)
        if block is None:
            raise StructureError(path, "no atoms: the mmCIF file has no _atom_site table")
        if _ends_with_atoms(content):
            _refuse_cut_table(path, content)
        parsed = gemmi.make_structure_from_block(block)
    except (RuntimeError, ValueError, IndexError) as error:
        if isinstance(error, StructureError):
            raise
        raise StructureError(path, f"not a readable mmCIF file, perhaps cut off: {_one_line(error)}") from error
    parsed.merge_chain_parts()
    return _with_first_model_only(path, parsed)


def _with_first_model_only(path: Path, parsed: gemmi.Structure) -> gemmi.Structure:
    first = next((index for index, model in enumerate(parsed) if len(model)), None)
    if first is None:
        raise StructureError(path, "no atoms: the table of atoms is empty")
    for index in range(len(parsed) - 1, -1, -1):
        if index != first:
            del parsed[index]
    return parsed


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _ends_with_atoms(content: bytes) -> bool:
    # True if the table of atoms is the last thing in the text: no other category, loop or comment follows it.
    last_table = content.rfind(b"_atom_site.")
    return re.search(rb"^(?:#|_|loop_|data_)", content[last_table + 1 :], re.MULTILINE) is None


def _refuse_cut_table(path: Path, content: bytes) -> None:
    if not content.endswith((b"\n", b"\r")):
        raise StructureError(
            path,
            "mmCIF text ends within a line of the _atom_site table: the file is incomplete, copy it again"
            " (if it is complete, end its last line)",
        )
    if _TABLES_CLOSED.search(content):
        raise StructureError(
            path,
            "mmCIF text ends within the _atom_site table, without the '#' that ends the tables before: the file is"
            " incomplete, copy it again (if it is complete, add a line '#')",
        )


def _atom_lines(content: bytes) -> tuple[np.ndarray, np.ndarray, int | None]:
    """Starts and ends of the atom lines of the first model, and where this model ends, None for the end of the text."""
    text = np.frombuffer(content, np.uint8)
    newlines = np.flatnonzero(text == ord("\n"))
    starts = np.concatenate([[0], newlines + 1])
    ends = np.concatenate([newlines, [len(text)]])
    long_enough = ends - starts >= _RECORD_LETTERS
    starts, ends = starts[long_enough], ends[long_enough]
    letter = text[starts]
    candidates = np.flatnonzero((letter == ord("A")) | (letter == ord("H")))
    letters = text[starts[candidates, None] + np.arange(_RECORD_LETTERS)]
    lines = candidates[(letters == _ATOM_LETTERS[0]).all(axis=1) | (letters == _ATOM_LETTERS[1]).all(axis=1)]
    if not len(lines):
        return lines, lines, None
    after = np.flatnonzero((letter == ord("E")) | (letter == ord("M")))
    model_ends = (start for start in starts[after[after > lines[0]]].tolist() if content.startswith(_MODEL_ENDS, start))
    end = next(model_ends, None)
    starts, ends = starts[lines], ends[lines]
    count = len(starts) if end is None else int(np.searchsorted(starts, end))
    return starts[:count], ends[:count], end


def _check_atom_lines(path: Path, content: bytes, starts: np.ndarray, ends: np.ndarray) -> None:
    short = ends - starts < _COORDINATE_COLUMNS.stop
    if short.any():
        line = int(np.argmax(short))
        raise _line_error(path, content, starts[line], ends[line], "atom record is cut off")
    if ends[-1] == len(content) and len(starts) > 1:
        length, previous = (len(content[starts[i] : ends[i]].rstrip()) for i in (-1, -2))
        if length < min(previous, _END_OF_B_FACTOR):
            raise _line_error(path, content, starts[-1], ends[-1], "last atom record is cut off")

    # Rows of consecutive bytes, then one contiguous array per column: both several times faster than single elements.
    windows = sliding_window_view(np.frombuffer(content, np.uint8), _COORDINATE_COLUMNS.stop)
    columns = np.ascontiguousarray(windows[starts, _NUMBER_COLUMNS.start :].T)
    for line in np.flatnonzero(~_usual_fields(columns)).tolist():
        # Unusual, not yet wrong: other numbers of decimals, hybrid-36 residue numbers.
        record = content[starts[line] : ends[line]].decode("utf-8", "replace")
        number = record[_NUMBER_COLUMNS].strip()
        if not re.fullmatch(r"-?\d+|[A-Za-z][0-9A-Za-z]{3}", number):
            raise _line_error(path, content, starts[line], ends[line], f"residue number {number!r} is no number")
        for axis, column in zip("xyz", (30, 38, 46), strict=True):
            value = record[column : column + 8].strip()
            if not re.fullmatch(r"[-+]?(?:\d+\.?\d*|\.\d+)", value):
                raise _line_error(path, content, starts[line], ends[line], f"{axis} coordinate {value!r} is no number")


def _usual_fields(columns: np.ndarray) -> np.ndarray:
    """(L,) bool for (32, L) characters of columns 23 to 54: integer residue number, coordinates in the format 8.3."""
    digit = (columns >= ord("0")) & (columns <= ord("9"))
    blank = columns == ord(" ")
    minus = columns == ord("-")
    usual = np.ones(columns.shape[1], bool)
    for first, last in ((0, 3), (8, 11), (16, 19), (24, 27)):
        # Right-justified integer digits: from the last digit leftwards digits, then at most one minus, then blanks.
        usual &= digit[last]
        for column in range(first, last):
            usual &= ((digit[column] | minus[column]) & digit[column + 1]) | blank[column]
    for point in (12, 20, 28):
        usual &= (columns[point] == ord(".")) & digit[point + 1] & digit[point + 2] & digit[point + 3]
    return usual


def _line_error(path: Path, content: bytes, start: int, end: int, problem: str) -> StructureError:
    record = content[start:end].decode("utf-8", "replace").rstrip()
    number = content.count(b"\n", 0, start) + 1
    return StructureError(path, f"line {number}: {problem}: {record!r}")
