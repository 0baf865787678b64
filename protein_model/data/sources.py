"""What `--pdb_path` can be -> the files to read, each with a path relative to the data folder.

Reading the files is left to `shards`; telling which of them have changed, to `inventory`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..structures import LIST_ENDINGS, STRUCTURE_ENDINGS, walk_structure_files
from ..wording import counted
from .errors import CacheError, Unusable

CACHE_FILE = "cache.json"
CACHE_MARKER = '{"format": "protein_model structure cache"'  # first characters of CACHE_FILE
CHAIN_SET_ENDING = ".jsonl"
NOT_UTF8 = "file name is not UTF-8; rename the file"


@dataclass(frozen=True)
class SourceFile:
    """One file to read.

    Attributes
    ----------
    path : what the file is called everywhere: relative to the data folder, with forward slashes (an absolute path for a
        listed file that lies elsewhere)
    location : where it is
    """

    path: str
    location: Path


@dataclass(frozen=True)
class Sources:
    """The files that `--pdb_path` stands for.

    Attributes
    ----------
    kind : what `--pdb_path` is; "file" and "list" of structure files, "chain_set" for the published CATH 4.2 layout
    root : the data folder, which paths are relative to
    files : in order of their paths, each once
    unusable : listed files that are not there, folders that cannot be entered
    repeated : lines of a list that name a file once more
    """

    kind: Literal["folder", "file", "list", "chain_set"]
    root: Path
    files: list[SourceFile]
    unusable: list[Unusable]
    repeated: int = 0


def data_folder(pdb_path: Path) -> Path:
    """The folder that source paths are relative to: `pdb_path` itself, or the one that the file lies in."""
    return pdb_path if pdb_path.is_dir() else pdb_path.parent


def is_cache_folder(folder: Path) -> bool:
    """True for the folder of a finished cache."""
    try:
        with open(folder / CACHE_FILE, encoding="utf-8", errors="replace") as handle:
            return handle.read(len(CACHE_MARKER)) == CACHE_MARKER
    except OSError:
        return False


def list_sources(pdb_path: Path) -> Sources:
    """Find the files that `pdb_path` stands for.

    Parameters
    ----------
    pdb_path : a folder, searched recursively (hidden files, hidden folders and finished caches are left out, a folder
        reached twice through links is searched once); a structure file; a text file of paths (`.txt`, `.list`), one a
        line, relative to the text file, `#` begins a comment; or a `.jsonl` file in the layout of CATH 4.2's
        `chain_set.jsonl`

    Raises
    ------
    CacheError : there is no such path, or no structure file in it
    """
    if pdb_path.is_dir():
        sources = _folder(pdb_path)
    elif not pdb_path.is_file():
        raise CacheError(f"--pdb_path {pdb_path}: there is no such file or folder")
    elif pdb_path.name.lower().endswith(LIST_ENDINGS):
        sources = _listed(pdb_path)
    elif pdb_path.name.lower().endswith((CHAIN_SET_ENDING, *STRUCTURE_ENDINGS)):
        if not _is_utf8(pdb_path.name):
            raise CacheError(f"--pdb_path {_readable(str(pdb_path))}: {NOT_UTF8}")
        kind: Literal["chain_set", "file"] = "chain_set" if pdb_path.name.lower().endswith(CHAIN_SET_ENDING) else "file"
        sources = Sources(kind, pdb_path.parent, [SourceFile(pdb_path.name, pdb_path)], [])
    else:
        raise CacheError(
            f"--pdb_path {pdb_path}: unknown kind of file; give a folder, a structure file "
            f"({', '.join(STRUCTURE_ENDINGS)}), a text file of paths ({', '.join(LIST_ENDINGS)}) or a chain_set.jsonl"
        )
    if not sources.files:
        raise CacheError(_nothing_found(pdb_path, sources))
    return sources


def _is_structure_file(name: str) -> bool:
    return name.lower().endswith(STRUCTURE_ENDINGS)


def _is_utf8(path: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in path)


def _readable(path: str) -> str:
    """A path with escapes in place of the bytes that are not UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _folder(root: Path) -> Sources:
    files: list[SourceFile] = []
    unusable: list[Unusable] = []

    def report(error: OSError) -> None:
        relative = os.path.relpath(error.filename or root, root)
        unusable.append(Unusable(relative, "", f"folder cannot be searched: {error.strerror}"))

    for location in walk_structure_files(root, report, left_out=is_cache_folder):
        path = location.relative_to(root).as_posix()
        if _is_utf8(path):
            files.append(SourceFile(path, location))
        else:
            unusable.append(Unusable(_readable(path), "", NOT_UTF8))
    return Sources("folder", root, sorted(files, key=lambda file: file.path), unusable)


def _listed(list_file: Path) -> Sources:
    root = Path(os.path.abspath(list_file.parent))  # so that a listed absolute path is seen to be inside
    try:
        lines = list_file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise CacheError(f"--pdb_path {list_file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CacheError(f"--pdb_path {list_file}: a list of paths must be UTF-8 text ({error})") from error
    files: dict[str, SourceFile] = {}
    unusable: dict[str, Unusable] = {}
    repeated = 0
    for line in lines:
        entry = line.split("#", 1)[0].strip()
        if not entry:
            continue
        location = Path(os.path.normpath(root / os.path.expanduser(entry)))
        path = (location.relative_to(root) if location.is_relative_to(root) else location).as_posix()
        if path in files or path in unusable:
            repeated += 1
        elif not _is_utf8(path):
            unusable[path] = Unusable(_readable(path), "", NOT_UTF8)
        elif os.path.isdir(location):
            unusable[path] = Unusable(path, "", "listed path is a folder; list its files one by one")
        elif not os.path.lexists(location):
            unusable[path] = Unusable(path, "", "listed file does not exist")
        elif not _is_structure_file(location.name):
            unusable[path] = Unusable(path, "", f"listed file has none of the endings {', '.join(STRUCTURE_ENDINGS)}")
        else:
            files[path] = SourceFile(path, location)
    return Sources("list", root, sorted(files.values(), key=lambda file: file.path), list(unusable.values()), repeated)


def _nothing_found(pdb_path: Path, sources: Sources) -> str:
    if sources.kind == "list":
        message = f"--pdb_path {pdb_path}: the list names no structure file that exists"
        if sources.unusable:
            first = sources.unusable[0]
            entries = counted(len(sources.unusable), "entry", "entries")
            message += f" ({entries} cannot be used, the first is {first.file}: {first.reason})"
        return f"{message}; paths are relative to the folder of the list"
    message = f"--pdb_path {pdb_path}: no structure file found; searched for {', '.join(STRUCTURE_ENDINGS)}"
    chain_sets = sorted(path.name for path in pdb_path.glob(f"*{CHAIN_SET_ENDING}"))
    caches = sorted(path.parent.name for path in pdb_path.glob(f"*/{CACHE_FILE}") if is_cache_folder(path.parent))
    if chain_sets:
        message += f"; to train on {chain_sets[0]}, name the file itself: --pdb_path {pdb_path / chain_sets[0]}"
    elif caches:
        message += f"; to train on a finished cache, name its folder: --pdb_path {pdb_path / caches[0]}"
    elif any(pdb_path.glob("shard-*.arrow")):
        message += (
            f"; shards of a cache lie there, but not its {CACHE_FILE}: copy the cache again, or name the structure "
            "files that it was made of"
        )
    elif sources.unusable:
        message += f"; {sources.unusable[0].file}: {sources.unusable[0].reason}"
    return message
