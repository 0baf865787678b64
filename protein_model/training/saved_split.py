"""What a finished run trained, validated and tested on, from what it saved: for honest evaluation afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ..data.addresses import data_path
from ..data.cache import CacheOptions, StructureCache, build_cache
from ..data.errors import SplitError
from ..data.progress import Progress
from ..data.splits import PARTS
from .arguments import EXAMPLES, GivenOptions
from .preparation import split_data
from .saving import SETTINGS_FILE

__all__ = ["PARTS", "saved_part"]


def saved_part(
    model_folder: Path, part: str, pdb_path: Path | str | None = None, progress: bool = True
) -> tuple[StructureCache, np.ndarray]:
    """The structures of one part of a run's split.

    The split is made again by the run's own settings, on the same data: a cache of another content is refused, because
    its parts could hold structures that the model was trained on.

    Parameters
    ----------
    model_folder : best model or checkpoint of the run, with its settings
    part : "train", "validation" or "test"
    pdb_path : where the data are now, structure files or a finished cache, or its address; by default where they were
    progress : show a bar if the cache must be built

    Returns
    -------
    the cache · its rows in that part, int64, sorted

    Raises
    ------
    SplitError : there are no settings, the data are not those of the run, or the part is empty
    CacheError : the data cannot be read
    """
    path = model_folder / SETTINGS_FILE
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        saved, fingerprint = run["settings"], run["data"]["fingerprint"]
        settings = GivenOptions({}).resolve(saved)
    except FileNotFoundError:
        raise SplitError(
            f"--split {part}: {model_folder} has no {SETTINGS_FILE}, so the split of its run is not known; give a "
            "folder that training saved, or the structures to evaluate on as --pdb_path without --split"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SplitError(f"--split {part}: {path} cannot be read ({error})") from error
    source = pdb_path or (data_path(settings.pdb_path) if settings.pdb_path is not None else EXAMPLES)
    options = CacheOptions(unit=settings.unit, min_length=settings.min_length)
    cache = build_cache(source, Path(settings.cache_dir), options, progress=progress)
    if cache.fingerprint != fingerprint:
        raise SplitError(
            f"--split {part}: the data in {source} are not those that the model was trained on (fingerprint "
            f"{cache.fingerprint[:12]} instead of {fingerprint[:12]}), so its split cannot be told from them; give the "
            "data or the cache of the run as --pdb_path, or leave out --split to evaluate on all of it"
        )
    rows: np.ndarray = getattr(split_data(settings, cache, source), part)
    if not len(rows):
        raise SplitError(f"--split {part}: the split of this run has no {part} structures")
    cache.fetch(rows, display=Progress(progress, "fetching the data"))
    return cache, rows
