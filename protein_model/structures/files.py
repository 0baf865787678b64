"""Names, endings and raw contents of structure files: decompression, and telling PDB from mmCIF by content."""

from __future__ import annotations

import codecs
import gzip
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from ..errors import UserError
from .errors import StructureError

STRUCTURE_ENDINGS = (".pdb", ".ent", ".cif", ".mmcif", ".pdb.gz", ".ent.gz", ".cif.gz", ".mmcif.gz")
LIST_ENDINGS = (".txt", ".list")  # text files of paths
NOT_REGULAR = "is no regular file but a pipe, a device or a folder"
_GZIP_MAGIC = b"\x1f\x8b"
# mmCIF begins with a data block; before it there may be blank lines and comments.
_MMCIF_START = re.compile(rb"(?:\s|#[^\n]*\n)*data_", re.IGNORECASE)


def structure_name(path: str | Path) -> str:
    """Name of a file without its folder and structure endings: `x/1abc.pdb.gz` -> `1abc`."""
    name = Path(path).name
    for ending in sorted(STRUCTURE_ENDINGS, key=len, reverse=True):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name


def walk_structure_files(
    root: Path,
    on_error: Callable[[OSError], None] | None = None,
    left_out: Callable[[Path], bool] = lambda folder: False,
) -> Iterator[Path]:
    """All files with `STRUCTURE_ENDINGS` in a folder and the folders below it.

    Hidden files and folders are left out, and a folder that links lead to twice is searched once.

    Parameters
    ----------
    on_error : called for each folder that cannot be searched
    left_out : True for folders that are not to be searched
    """
    seen: set[tuple[int, int]] = set()
    for folder, subfolders, names in os.walk(root, onerror=on_error, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        # Sorted, so that it does not depend on the file system which of two links to one folder is followed.
        subfolders[:] = sorted(
            name for name in subfolders if not name.startswith(".") and not left_out(Path(folder, name))
        )
        for name in names:
            if name.lower().endswith(STRUCTURE_ENDINGS) and not name.startswith("."):
                yield Path(folder, name)


def find_structure_files(path: str | Path) -> list[Path]:
    """The structure files that a path stands for.

    Parameters
    ----------
    path : a folder (see `walk_structure_files`; sorted), a structure file, or a text file (`.txt`, `.list`) with one
        path per line, relative to the text file; `#` begins a comment

    Raises
    ------
    UserError : there is no such path, or no structure file in it, or a list of paths cannot be read
    """
    path = Path(path)
    if path.is_dir():
        found = sorted(walk_structure_files(path))
    elif not path.is_file():
        raise UserError(f"{path}: there is no such file or folder")
    elif path.name.lower().endswith(LIST_ENDINGS):
        found = [file for _, file in _listed(path)]
    else:
        found = [path]
    if not found:
        raise UserError(f"{path}: no structure file found; searched for {', '.join(STRUCTURE_ENDINGS)}")
    return found


def missing_files(path: str | Path) -> dict[Path, str]:
    """What is wrong with those of `find_structure_files` that a list names, but that are no files.

    Returns
    -------
    file -> message that says which line of the list names it and what to do; empty unless `path` is a list
    """
    path = Path(path)
    if not path.name.lower().endswith(LIST_ENDINGS) or not path.is_file():
        return {}
    problems: dict[Path, str] = {}
    for number, file in _listed(path):
        if os.path.isdir(file):
            problems.setdefault(file, f"{path}, line {number}: {file} is a folder; list its files one by one")
        elif not os.path.exists(file):
            problems.setdefault(
                file,
                f"{path}, line {number}: there is no file {file}; correct the line or remove it (paths are relative to "
                "the folder of the list)",
            )
    return problems


def _listed(path: Path) -> list[tuple[int, Path]]:
    """Numbers of the lines of a list, from 1, and the files that they name."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: a list of paths must be UTF-8 text ({error})") from error
    lines = enumerate((line.split("#", 1)[0].strip() for line in text.splitlines()), start=1)
    return [(number, path.parent / os.path.expanduser(line)) for number, line in lines if line]


def read_content(path: str | Path) -> bytes:
    """Content of a file, decompressed if it is a gzip file whatever its ending says, as UTF-8.

    Raises
    ------
    StructureError : the compressed data are cut off or damaged, there is nothing in the file, or it is a pipe
    OSError : the file cannot be opened
    """
    if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for without end
        raise StructureError(path, NOT_REGULAR)
    content = Path(path).read_bytes()
    if content.startswith(_GZIP_MAGIC):
        try:
            content = gzip.decompress(content)
        except EOFError as error:
            raise StructureError(path, "gzip data are cut off: the file is incomplete, copy it again") from error
        except (zlib.error, gzip.BadGzipFile) as error:
            raise StructureError(path, f"gzip data are damaged: {error}; copy the file again") from error
    content = content.removeprefix(codecs.BOM_UTF8)
    if not content or content.isspace():
        raise StructureError(path, "file is empty")
    if not content.isascii():
        try:
            content.decode("utf-8")
        except UnicodeDecodeError:
            # Author names and titles in old headers; every sequence of bytes is Latin-1.
            content = content.decode("latin-1").encode("utf-8")
    return content


def sniff_format(content: bytes) -> Literal["pdb", "mmcif"]:
    """Which of the two formats a content is in; anything that does not begin a CIF data block is taken for PDB."""
    return "mmcif" if _MMCIF_START.match(content) else "pdb"
