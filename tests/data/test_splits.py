"""Splits: as files and folders say, or by cluster, so that similar chains never come apart."""

from __future__ import annotations

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import protein_model.data.clusters as clusters
from protein_model.data.cache import CacheInterrupted, CacheOptions, StructureCache, build_cache, open_cache
from protein_model.data.errors import SplitError
from protein_model.data.splits import PARTS, Split, cluster_split, predefined_split, refuse_unscorable
from protein_model.structures import Structure, encode_sequence, sequence_of, write_structure
from tests.data.sequences import family, similarity_of_pairs
from tests.data.structure_files import EXAMPLES, complex_of, copy_examples, pdb_text, random_pdb_text


def build(pdb_path: Path, cache_dir: Path, unit: str = "chain") -> StructureCache:
    return build_cache(pdb_path, cache_dir, CacheOptions(unit=unit), num_workers=1, progress=False)


def names(cache: StructureCache, rows: np.ndarray) -> set[str]:
    return {cache.names[row] for row in rows}


def by_name(cache: StructureCache, split: Split) -> dict[str, set[str]]:
    return {part: names(cache, getattr(split, part)) for part in PARTS}


def assert_is_split(cache: StructureCache, split: Split) -> None:
    """Every structure in one place, rows sorted, something to train and to validate on."""
    parts = [split.train, split.validation, split.test, split.unassigned]
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(cache)))
    assert all(part.tolist() == sorted(part.tolist()) for part in parts)
    assert len(split.train)
    assert len(split.validation)


def with_sequence(structure: Structure, sequence: str) -> Structure:
    """The backbone of a structure, as long as is needed, with another sequence."""
    rows = np.arange(len(sequence)) % len(structure)
    part = structure.take(rows)
    mask = part.atom_mask.copy()
    mask[:, 4:] = False
    shift = (np.arange(len(sequence)) // len(structure) * 100)[:, None, None]
    return replace(
        part,
        residue_type=encode_sequence(sequence),
        atom_mask=mask,
        coordinates=(np.where(mask[..., None], part.coordinates + shift, 0)).astype(np.float32),
        residue_number=np.arange(1, len(sequence) + 1, dtype=np.int32),
        insertion_code=np.full(len(sequence), " ", "U1"),
        position=np.arange(len(sequence), dtype=np.int32),
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> StructureCache:
    """All embedded examples by chain."""
    return build(EXAMPLES[0].parent, tmp_path_factory.mktemp("cache"))


# Predefined: a file


@pytest.fixture
def small(tmp_path) -> StructureCache:
    """Eight small chains in a folder that may get a split file."""
    copy_examples(tmp_path / "data", 1)
    return build(tmp_path / "data", tmp_path)


def write_split(path: Path, **parts: list[str]) -> Path:
    path.write_text(json.dumps({part: listed for part, listed in parts.items()} | {"cath_nodes": {"x": ["1.10"]}}))
    return path


def test_split_file_is_followed_and_what_does_not_match_is_counted_on_both_sides(small, tmp_path):
    n = small.names
    path = write_split(
        tmp_path / "mine.json",
        train=[n[5], n[0], n[1], "9zzz.A", n[0]],
        validation=[n[2], "8zzz.B"],
        test=[n[3]],
    )
    split = predefined_split(small, tmp_path / "data", path)
    assert_is_split(small, split)
    assert by_name(small, split) == {"train": {n[0], n[1], n[5]}, "validation": {n[2]}, "test": {n[3]}}
    assert names(small, split.unassigned) == {n[4], n[6], n[7]}
    lines = split.description.splitlines()
    assert lines[0] == "predefined split of mine.json: 3 train, 1 validation, 1 test"
    assert lines[1] == f"7 names in {path}"
    assert lines[2] == "2 of them have no structure here: 8zzz.B, 9zzz.A"
    assert lines[3].startswith("3 structures are in no part of it and not used: ")
    assert all(n[row] in lines[3] for row in (4, 6, 7))


def test_split_file_is_looked_for_in_and_beside_the_data(small, tmp_path):
    n = small.names
    with pytest.raises(SplitError, match=r"have no chain_set_splits\.json.*name the file with --split_file"):
        predefined_split(small, tmp_path / "data")
    write_split(tmp_path / "chain_set_splits.json", train=n[:4], validation=n[4:])
    assert names(small, predefined_split(small, tmp_path / "data").train) == set(n[:4])
    write_split(tmp_path / "data" / "chain_set_splits.json", train=n[:2], validation=n[2:])
    assert names(small, predefined_split(small, tmp_path / "data").train) == set(n[:2])
    # From the folder of the finished cache, the data folder is found by what the cache says.
    assert names(small, predefined_split(small, small.folder).train) == set(n[:2])
    named = write_split(tmp_path / "x.json", train=n[:1], validation=n[1:])
    assert names(small, predefined_split(small, tmp_path / "data", named).train) == set(n[:1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", "must be an object with lists of names"),
        ('{"train": ["a"]}', "'validation' is missing or not a list of names"),
        ('{"train": "a", "validation": []}', "'train' is missing or not a list of names"),
        ('{"train": [1], "validation": ["b"]}', "'train' is missing or not a list of names"),
        ('{"train": ["a", "b"], "validation": ["b"]}', "b is in train and in validation; it can be in one"),
        ('{"train": ["1abc.A"], "validation": ["2abc.A"]}', "no structure to train on; .*are called, for example, "),
    ],
)
def test_split_files_of_no_use(small, tmp_path, content, message):
    path = tmp_path / "split.json"
    path.write_text(content)
    with pytest.raises(SplitError, match=message) as caught:
        predefined_split(small, tmp_path / "data", path)
    assert str(path) in str(caught.value)


def test_a_split_file_that_is_not_there(small, tmp_path):
    with pytest.raises(SplitError, match=r"gone\.json: cannot be read: No such file"):
        predefined_split(small, tmp_path, tmp_path / "gone.json")


def test_one_structure_under_two_names_cannot_be_in_two_parts(example_structures, tmp_path):
    (tmp_path / "data").mkdir()
    for name, row in (("1abc", 2), ("2abc", 3), ("3abc", 4)):
        parts = {"A": example_structures[row], "B": example_structures[row + 3]}
        write_structure(complex_of(name, parts), tmp_path / "data" / f"{name}.pdb")
    path = write_split(tmp_path / "s.json", train=["1abc.A", "2abc.A"], validation=["1ABC_B", "3abc.A"])
    complexes = build(tmp_path / "data", tmp_path, "complex")
    with pytest.raises(SplitError, match="1 structure is meant by a name in train and by another one in validation"):
        predefined_split(complexes, tmp_path / "data", path)
    chains = build(tmp_path / "data", tmp_path)
    split = predefined_split(chains, tmp_path / "data", path)
    assert by_name(chains, split)["train"] == {"1abc.A", "2abc.A"}
    assert by_name(chains, split)["validation"] == {"1abc.B", "3abc.A"}


def test_the_published_cath_split(shared_data, example_structures, tmp_path):
    """The published names, for files called as the PDB and as data sets call them."""
    published = json.loads((shared_data / "splits" / "chain_set_splits.cath42.json").read_text())
    counts = {"train": 14, "validation": 6, "test": 4}
    chosen = {part: published[part][7 :: 1 + len(published[part]) // count] for part, count in counts.items()}
    forms = ["{}.{}.pdb", "{}{}.pdb", "{}_{}.cif", "pdb{}.ent"]
    (tmp_path / "data").mkdir()
    expected: dict[str, set[str]] = {part: set() for part in PARTS}
    listed = [(part, name) for part, names_of_part in chosen.items() for name in names_of_part]
    for number, (part, name) in enumerate(listed):
        entry, chain_id = name.split(".")
        file = forms[number % 4].format(entry, chain_id)
        structure = complex_of("x", {chain_id: example_structures[number % len(example_structures)]})
        target = tmp_path / "data" / file
        write_structure(structure, target.with_suffix(".pdb") if target.suffix == ".ent" else target)
        if target.suffix == ".ent":
            target.with_suffix(".pdb").rename(target)
        expected[part].add(f"{file.rsplit('.', 1)[0]}.{chain_id}")
    write_structure(example_structures[0], tmp_path / "data" / "0xyz.pdb")
    chains = build(tmp_path / "data", tmp_path)
    split = predefined_split(chains, tmp_path / "data", shared_data / "splits" / "chain_set_splits.cath42.json")
    assert_is_split(chains, split)
    assert by_name(chains, split) == expected
    assert len(split.unassigned) == 1
    total = sum(len(published[part]) for part in PARTS)
    present = sum(map(len, expected.values()))
    assert f"{total:,} names in " in split.description
    assert f"{total - present:,} of them have no structure here: " in split.description
    assert "1 structure is in no part of it and not used: 0xyz." in split.description


# Predefined: subfolders


@pytest.mark.parametrize("validation", ["validation", "valid", "val"])
def test_subfolders(tmp_path, validation):
    data = tmp_path / "data"
    for number, folder in enumerate(["train/a", "train/b/c", validation, "test", ".", "other"]):
        (data / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(EXAMPLES[number], data / folder)
    cache = build(data, tmp_path)
    split = predefined_split(cache, data)
    assert_is_split(cache, split)
    assert {part: {cache.sources[row].split("/")[0] for row in getattr(split, part)} for part in PARTS} == {
        "train": {"train"},
        "validation": {validation},
        "test": {"test"},
    }
    assert f"predefined split by subfolders of {data}: 2 train, 1 validation, 1 test" in split.description
    assert "2 structures are in no part of it and not used" in split.description
    assert by_name(cache, predefined_split(cache, cache.folder)) == by_name(cache, split)


@pytest.mark.parametrize(("present", "lacking"), [("train", "validate"), ("validation", "train")])
def test_a_lone_subfolder_is_not_enough(tmp_path, present, lacking):
    copy_examples(tmp_path / "data" / present, 1)
    cache = build(tmp_path / "data", tmp_path)
    with pytest.raises(SplitError, match=f"no structure to {lacking} on"):
        predefined_split(cache, tmp_path / "data")


# By cluster


def test_clusters_of_a_file_never_straddle_the_split(cache, tmp_path):
    n = cache.names
    members = [n[0:6], n[6:9], n[9:20]]
    lines = [f"{cluster[0]}\t{name}" for cluster in members for name in cluster]
    path = tmp_path / "clusters.tsv"
    path.write_text("\n".join([*lines, "9zzz.A\t9zzz.A", f"9zzz.A\t{n[20]}", f"9zzz.A\t{n[21]}", ""]))
    for seed in range(12):
        split = cluster_split(cache, seed, path, validation_fraction=0.3, test_fraction=0.2)
        assert_is_split(cache, split)
        assert not len(split.unassigned)
        for cluster in [*members, [n[20], n[21]]]:
            assert sum(bool(set(cluster) & part) for part in by_name(cache, split).values()) == 1
    assert f"split by the clusters of {path}: " in split.description
    assert f"{len(n) - 22 + 4:,} clusters, the largest of 11 structures" in split.description
    assert "1 name of clusters.tsv without a structure here: 9zzz.A" in split.description
    assert f"{len(n) - 22:,} structures not in clusters.tsv, each a cluster of its own: " in split.description


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a b\n", "line 1: 1 columns separated by tabs instead of 2"),
        ("a\tb\n\na\tb\tc\n", "line 3: 3 columns"),
        ("9zzz.A\t9zzz.A\n", r"names none of the structures here, which are called.*; the file has 9zzz\.A"),
        (b"\xff\xfe\t\n", "not text"),
    ],
)
def test_cluster_files_of_no_use(cache, tmp_path, content, message):
    path = tmp_path / "clusters.tsv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SplitError, match=message) as caught:
        cluster_split(cache, 0, path)
    assert str(path) in str(caught.value)


@pytest.fixture(scope="module")
def families(tmp_path_factory, example_structures) -> StructureCache:
    """Chains of 40 sequences: eight examples, and four relatives of each at 50 to 100 % identity."""
    generator = np.random.default_rng(3)
    folder = tmp_path_factory.mktemp("families")
    for structure in sorted(example_structures, key=len)[::5][:8]:
        own = sequence_of(structure.residue_type)
        for number, member in enumerate([own, *family(generator, own, 4)]):
            write_structure(with_sequence(structure, member), folder / f"{structure.name}_{number}.pdb")
    return build(folder, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def similar_pairs(families) -> list[tuple[int, int]]:
    """Pairs of at least 70 % identity over 80 % of the shorter one, by aligning all."""
    sequences = [families.sequence(row) for row in range(len(families))]
    similarity = similarity_of_pairs(sequences)
    return [pair for pair, (identity, coverage) in similarity.items() if identity >= 0.7 and coverage >= 0.8]


def test_similar_chains_never_straddle_the_split(families, similar_pairs):
    assert len(similar_pairs) > 20
    for seed in range(20):
        split = cluster_split(families, seed, validation_fraction=0.2, test_fraction=0.2)
        assert_is_split(families, split)
        part = np.empty(len(families), int)
        for number, rows in enumerate((split.train, split.validation, split.test)):
            part[rows] = number
        assert [pair for pair in similar_pairs if part[pair[0]] != part[pair[1]]] == []


def test_complexes_that_share_a_similar_chain_stay_together(example_structures, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    a, b, c, d, e = sorted(example_structures, key=len)[:5]
    for name, chains in (("one", (a, b)), ("two", (b, c)), ("three", (d,)), ("four", (e,))):
        write_structure(complex_of(name, dict(zip("AB", chains, strict=False))), data / f"{name}.pdb")
    complexes = build(data, tmp_path, "complex")
    for seed in range(6):
        parts = by_name(complexes, cluster_split(complexes, seed, validation_fraction=0.4))
        assert any({"one", "two"} <= part for part in parts.values())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), validation=st.floats(0.02, 0.6), test=st.just(0.0) | st.floats(0.02, 0.35))
def test_shares_are_kept_about_and_no_part_is_empty(cache, seed, validation, test):
    split = cluster_split(cache, seed, validation_fraction=validation, test_fraction=test)
    assert_is_split(cache, split)
    assert not len(split.unassigned)
    assert bool(len(split.test)) == bool(test)
    # The examples have nothing to do with each other but for a few, so that clusters are small.
    assert abs(len(split.validation) - validation * len(cache)) < 2
    assert abs(len(split.test) - test * len(cache)) < 2


def test_the_split_is_a_function_of_the_seed_and_the_structures(cache, tmp_path):
    first = cluster_split(cache, 5, validation_fraction=0.25)
    for other in (cache, open_cache(cache.folder), build(EXAMPLES[0].parent, tmp_path)):
        again = cluster_split(other, 5, validation_fraction=0.25)
        assert by_name(other, again) == by_name(cache, first)
    assert by_name(cache, cluster_split(cache, 6, validation_fraction=0.25)) != by_name(cache, first)


def test_a_few_structures_more_move_few_others(cache, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(EXAMPLES[0].parent, data)
    for number in range(3):
        (data / f"new{number}.pdb").write_text(random_pdb_text(number))
    more = build(data, tmp_path)
    assert len(more) == len(cache) + 3
    moved = []
    for seed in range(10):
        before = by_name(cache, cluster_split(cache, seed, validation_fraction=0.25))["validation"]
        after = by_name(more, cluster_split(more, seed, validation_fraction=0.25))["validation"]
        moved.append(len((before ^ after) & set(cache.names)))
    assert max(moved) <= 3


@pytest.mark.parametrize(
    ("validation", "test", "message"),
    [
        (0.0, 0.0, "--validation_fraction must be between 0 and 1, but is 0.0"),
        (1.0, 0.0, "--validation_fraction must be between 0 and 1"),
        (0.5, 0.5, "must be at least 0 and leave something to train on"),
        (0.5, -0.1, "must be at least 0"),
    ],
)
def test_impossible_shares(cache, validation, test, message):
    with pytest.raises(SplitError, match=message):
        cluster_split(cache, 0, validation_fraction=validation, test_fraction=test)


def test_one_cluster_cannot_be_split(tmp_path):
    copy_examples(tmp_path / "data", 3, EXAMPLES[:1])
    cache = build(tmp_path / "data", tmp_path)
    with pytest.raises(SplitError, match="3 structures form 1 cluster of similar sequences, and a split needs 2"):
        cluster_split(cache, 0)


# Clusters are computed once


def test_clusters_are_kept_and_made_anew_for_other_contents(tmp_path, monkeypatch):
    copy_examples(tmp_path / "data", 1)
    runs = []
    compute = clusters.cluster_sequences

    def counted(sequences, on_sequence, num_workers):
        runs.append(len(sequences))
        return compute(sequences, on_sequence, num_workers)

    monkeypatch.setattr(clusters, "cluster_sequences", counted)
    cache = build(tmp_path / "data", tmp_path)
    first = cluster_split(cache, 0, validation_fraction=0.3)
    [kept] = cache.folder.glob("clusters-*.tsv")
    assert by_name(cache, cluster_split(cache, 0, validation_fraction=0.3)) == by_name(cache, first)
    assert runs == [8]
    # It is a cluster file as any other.
    assert by_name(cache, cluster_split(cache, 0, kept, validation_fraction=0.3)) == by_name(cache, first)

    kept.write_text(kept.read_text()[:-20])
    assert by_name(cache, cluster_split(cache, 0, validation_fraction=0.3)) == by_name(cache, first)
    assert runs == [8, 8]
    kept.write_bytes(kept.read_bytes()[:-4] + b"\xff" + kept.read_bytes()[-3:])
    assert by_name(cache, cluster_split(cache, 0, validation_fraction=0.3)) == by_name(cache, first)
    assert runs == [8, 8, 8]

    (tmp_path / "data" / "new.pdb").write_text(random_pdb_text(0))
    cache = build(tmp_path / "data", tmp_path)
    cluster_split(cache, 0, validation_fraction=0.3)
    assert runs == [8, 8, 8, 9]
    assert len(list(cache.folder.glob("clusters-*"))) == 1
    assert build(tmp_path / "data", tmp_path).statistics.read == 0


def test_of_several_processes_one_groups_and_the_others_wait(tmp_path, monkeypatch):
    copy_examples(tmp_path / "data", 1)
    cache = build(tmp_path / "data", tmp_path)
    runs, compute = [], clusters.cluster_sequences

    def slow(sequences, on_sequence, num_workers):
        runs.append(threading.get_ident())
        threading.Event().wait(0.5)
        return compute(sequences, on_sequence, num_workers)

    monkeypatch.setattr(clusters, "cluster_sequences", slow)
    found: list[dict[str, set[str]]] = []

    def split() -> None:
        found.append(by_name(cache, cluster_split(cache, 1, validation_fraction=0.3)))

    threads = [threading.Thread(target=split) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(found) == 3
    assert found[0] == found[1] == found[2]
    assert len(runs) == 1


def test_grouping_can_be_stopped(tmp_path):
    copy_examples(tmp_path / "data", 1)
    cache = build(tmp_path / "data", tmp_path)
    with pytest.raises(CacheInterrupted, match="while sequences were grouped"):
        cluster_split(cache, 0, should_stop=lambda: True)
    assert_is_split(cache, cluster_split(cache, 0))


def test_a_cache_that_cannot_be_written_is_split_all_the_same(tmp_path, capsys):
    copy_examples(tmp_path / "data", 1)
    cache = build(tmp_path / "data", tmp_path)
    expected = by_name(cache, cluster_split(cache, 0))
    for path in cache.folder.glob("clusters*"):
        path.unlink()
    (cache.folder / "clusters.lock").mkdir()  # as good as no right to write, which root always has
    assert by_name(cache, cluster_split(cache, 0, progress=True)) == expected
    assert "so the sequences are grouped anew in each run" in capsys.readouterr().err


def test_structures_without_a_residue_to_score_are_refused(tmp_path):
    for name, residue in (("known", "ALA"), ("unknown", "UNK")):
        (tmp_path / f"{name}.pdb").write_text(pdb_text(12, residue))
    cache = build(tmp_path, tmp_path / "cache")
    known, unknown = np.array([0]), np.array([1])
    nothing = np.array([], int)
    refuse_unscorable(cache, Split(known, known, nothing, nothing, ""))
    refuse_unscorable(cache, Split(np.array([1, 0]), known, nothing, nothing, ""))
    with pytest.raises(SplitError, match=r"nothing to validate on: of 1 structure \(unknown\.A\)"):
        refuse_unscorable(cache, Split(known, unknown, nothing, nothing, ""))
    with pytest.raises(SplitError, match="nothing to train on"):
        refuse_unscorable(cache, Split(unknown, known, nothing, nothing, ""))
