"""Figures for training on many files on many GPUs: simulated structures, the real manifest, index and epoch plan.

    python tests/benchmarks/large_plan.py [--files 200000] [--nodes 8] [--gpus 8]

Measured here: bytes per residue of a cache and files/s of building one, from the embedded examples; table of contents,
index and opening of a cache of the simulated structures, without its shards; making the plan of its epochs; which of
its shards a node reads, with and without --shuffle_within_parts; fetching and verifying one shard. Everything that
follows from assumptions is printed with them. Lengths are drawn as those of 19,522 X-ray chains are distributed
(median 193, standard deviation of the logarithm 0.62).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import pyarrow as pa

from protein_model.data.batching import BatchSettings, EpochPlan
from protein_model.data.building import FILES_PER_SHARD, MAX_SHARDS, MIN_SHARDS
from protein_model.data.cache import StructureCache, build_cache
from protein_model.data.index import INDEX_COLUMNS, write_index
from protein_model.data.manifest import CacheOptions, Manifest
from protein_model.data.parts import equal_parts
from protein_model.data.progress import Progress
from protein_model.data.rows import SCHEMA
from protein_model.data.storage import file_digest

EXAMPLES = Path(__file__).resolve().parents[2] / "protein_model" / "examples"
MEDIAN_LENGTH, SPREAD = 193, 0.62
LONGEST = 3000


def main() -> None:
    parser = argparse.ArgumentParser(description="Figures for a large data set on many GPUs.")
    parser.add_argument("--files", type=int, default=200_000, help="structure files [200000]")
    parser.add_argument("--residues_per_file", type=int, default=500, help="assumed [500]")
    parser.add_argument("--nodes", type=int, default=8, help="machines [8]")
    parser.add_argument("--gpus", type=int, default=8, help="of each machine [8]")
    parser.add_argument("--batch_residues", type=int, default=6000, help="per GPU and step [6000]")
    parser.add_argument("--step_seconds", type=float, default=0.2, help="assumed [0.2]")
    parser.add_argument("--link", type=float, default=1.25, help="assumed GB/s from the store to a machine [1.25]")
    parser.add_argument("--parameters", type=float, default=66e6, help="of the model [66e6]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        per_residue = small_cache(Path(scratch, "small"))
        cache = large_cache(Path(scratch, "large"), options.files, options.residues_per_file, per_residue)
    plans(cache, options, per_residue)


def small_cache(folder: Path) -> float:
    """Build the cache of the embedded examples. Returns bytes per residue."""
    started = time.perf_counter()
    cache = build_cache(EXAMPLES, folder, num_workers=1, progress=False)
    seconds = time.perf_counter() - started
    residues = int(cache.lengths.sum())
    shards = sum(path.stat().st_size for path in cache.folder.glob("shard-*.arrow"))
    rest = sum(path.stat().st_size for path in cache.folder.iterdir()) - shards
    files = cache.statistics.read
    say("measured on the embedded examples")
    say(f"  {files} files, {residues:,} residues")
    say(f"  {shards / residues:.0f} bytes per residue in shards, {rest / files:.0f} bytes per file beside them")
    say(f"  built at {files / seconds:.0f} files/s, {residues / seconds:,.0f} residues/s, by one process")
    return shards / residues


def large_cache(folder: Path, files: int, residues_per_file: int, per_residue: float) -> StructureCache:
    """Write the table of contents and the index of a cache of simulated structures, and open it without its shards."""
    randomness = np.random.default_rng(0)
    mean = MEDIAN_LENGTH * np.exp(SPREAD**2 / 2)
    chains = 1 + randomness.poisson(residues_per_file / mean - 1, files)
    lengths = np.exp(randomness.normal(np.log(MEDIAN_LENGTH), SPREAD, chains.sum())).clip(30, LONGEST).astype(np.int32)
    shard_count = min(max(files // FILES_PER_SHARD, MIN_SHARDS), MAX_SHARDS)
    shard_of_file = randomness.integers(0, shard_count, files)
    starts = np.cumsum([0, *chains])
    folder.mkdir()
    shards: list[dict[str, Any]] = []
    stored: list[pa.Table] = []
    for index in range(shard_count):
        members = np.flatnonzero(shard_of_file == index).tolist()
        names = [f"{number:06d}".translate(str.maketrans("0123456789", "abcdefghij")) for number in members]
        rows = [(name, chain) for name, number in zip(names, members, strict=True) for chain in range(chains[number])]
        own = np.concatenate([lengths[starts[number] : starts[number + 1]] for number in members])
        stored.append(
            pa.table(
                {
                    "name": pa.array([f"{name}.{chr(65 + chain % 26)}" for name, chain in rows]),
                    "stem": pa.array([name for name, _ in rows]),
                    "source": pa.array([f"{name[1:3]}/{name}.cif.gz" for name, _ in rows]),
                    "length": pa.array(own, pa.int32()),
                    "chain_ids": pa.array([[chr(65 + chain % 26)] for _, chain in rows]),
                }
            ).cast(pa.schema([SCHEMA.field(name) for name in INDEX_COLUMNS]))
        )
        shards.append(
            {
                "index": index,
                "file": f"shard-{index:05d}-{index:016x}.arrow",
                "size": int(own.sum() * per_residue),
                "sha256": hashlib.sha256(str(index).encode()).hexdigest(),
                "items": [
                    {
                        "path": f"{name[1:3]}/{name}.cif.gz",
                        "block": 0,
                        "start": 0,
                        "length": None,
                        "digest": hashlib.blake2b(name.encode(), digest_size=16).hexdigest(),
                        "status": [123456, 1700000000123456789, 1700000000123456789, 12345678],
                        "hashed_ns": 1700000009123456789,
                    }
                    for name in names
                ],
                "rows": [int(chains[number]) for number in members],
                "residues": [int(lengths[starts[number] : starts[number + 1]].sum()) for number in members],
                "unusable": [],
            }
        )
    for record, table in zip(shards, stored, strict=True):  # for the index only
        with pa.OSFile(str(folder / record["file"]), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    index, index_seconds = timed(lambda: write_index(folder, [record["file"] for record in shards], None))
    for record in shards:
        (folder / record["file"]).unlink()
    Manifest("/data", CacheOptions(), shard_count, tuple(shards), (), 0, index).write(folder)
    there = folder.rename(folder.with_name("there"))
    before = memory()
    cache, seconds = timed(lambda: build_cache(f"file://{there}", folder.with_name("here"), progress=False))
    bytes_of_shards = sum(record["size"] for record in shards)
    say(f"simulated: {files:,} files, {len(cache):,} chains, {cache.lengths.sum() / 1e6:.0f} M residues")
    say(
        f"  {shard_count} shards of {bytes_of_shards / shard_count / 1e6:.0f} MB, {bytes_of_shards / 1e9:.1f} GB in all"
    )
    say(f"  table of contents {(there / 'cache.json').stat().st_size / 1e6:.0f} MB, index {index['size'] / 1e6:.1f} MB")
    say(f"  index written in {index_seconds:.1f} s; fetched, verified and opened without shards in {seconds:.1f} s")
    say(f"  memory that this keeps: {memory() - before:.0f} MB a process")
    fetch_rate(there.with_name("one"), bytes_of_shards // shard_count)
    return cache


def fetch_rate(folder: Path, size: int) -> None:
    """Time what is done to a shard that has arrived: writing, SHA-256, a look at all its offsets, flushing to disk."""
    from protein_model.data.fetching import fetch_file
    from protein_model.data.remote import RemoteFolder

    folder.mkdir()
    values = np.random.default_rng(0).standard_normal(size // 4, dtype=np.float32)
    table = pa.table({"backbone": pa.ListArray.from_arrays(np.arange(0, len(values) + 1, 1000, np.int32), values)})
    there = folder / "shard-00000-0000000000000000.arrow"
    with pa.OSFile(str(there), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    record = {"file": there.name, "size": there.stat().st_size, "sha256": file_digest(there)}
    here = folder / "here"
    here.mkdir()
    remote = RemoteFolder(f"file://{folder}", here)
    _, seconds = timed(lambda: fetch_file(remote, record, lambda: False, Progress(False, "")))
    say(f"  one shard copied from this disk and verified in {seconds:.2f} s, {record['size'] / 1e6 / seconds:.0f} MB/s")


def plans(cache: StructureCache, options: argparse.Namespace, per_residue: float) -> None:
    """Make the plan in both ways, and count the shards that a node reads."""
    gpus = options.nodes * options.gpus
    settings = BatchSettings(None, options.batch_residues, gpus, 0)
    places = cache.stored_places
    lengths = cache.lengths
    shard = np.searchsorted(cache._starts, places, side="right") - 1
    sizes = np.array([record["size"] for record in cache._shards])
    node = np.arange(gpus) < options.gpus  # of the first machine
    cropped = np.minimum(lengths, options.batch_residues)
    say(f"epoch plans for {gpus} GPUs, {options.batch_residues:,} residues each and step")
    for title, parts in (
        ("global shuffle", None),
        ("--shuffle_within_parts", equal_parts(places, cropped, gpus)),
    ):
        before = memory()
        plan, seconds = timed(lambda parts=parts: EpochPlan(lengths, settings, parts))
        epoch, epoch_seconds = timed(lambda plan=plan: plan.epoch(0))
        filled = np.array([cropped[rows].sum() for rows in epoch]).reshape(-1, gpus)
        say(f"  {title}: {plan.steps_per_epoch} steps an epoch")
        say(f"    plan made in {seconds:.1f} s, order of an epoch in {epoch_seconds:.1f} s, {memory() - before:.0f} MB")
        uneven = (filled.max(axis=1) / filled.mean(axis=1) - 1).mean()
        say(f"    micro-batches {100 * filled.mean() / options.batch_residues:.1f} % full")
        say(f"    the fullest of a step has {100 * uneven:.1f} % more residues than their mean")
        seen = np.zeros(len(sizes), bool)
        told = []
        for step in range(plan.steps_per_epoch):
            rows = np.concatenate([epoch[step * gpus + stream] for stream in np.flatnonzero(node)])
            seen[shard[rows]] = True
            if step + 1 in (1, 3, 10, plan.steps_per_epoch):
                told.append(f"{100 * sizes[seen].sum() / sizes.sum():.0f} % by step {step + 1}")
        share = sizes[seen].sum()
        say(f"    shards that a machine reads from, by size: {', '.join(told)}")
        say(f"    to be fetched once: {share / 1e9:.2f} GB a machine, {options.nodes * share / 1e9:.0f} GB in all")
        say(f"    that takes {share / 1e9 / options.link:.1f} s at {options.link} GB/s")
    epoch_time = plan.steps_per_epoch * options.step_seconds
    per_gpu = options.batch_residues / options.step_seconds
    rate = gpus * per_gpu * per_residue / 1e6
    say(f"assumed: {options.step_seconds} s a step, {per_gpu:,.0f} residues/s per GPU")
    say(f"  epoch {epoch_time:.0f} s, without validation")
    say(
        f"  rows are read at {rate:.0f} MB/s in all, {rate / options.nodes:.0f} MB/s a machine, from its disk or memory"
    )
    state = 20 * options.parameters / 1e6
    say(f"checkpoint of {options.parameters / 1e6:.0f} M parameters, 20 bytes each: {state:,.0f} MB, by one process")
    say(f"  one in 10 minutes: {state / 600:.1f} MB/s; one an epoch: {state / epoch_time:.0f} MB/s")


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started


def memory() -> float:
    """Of this process, now, in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
