"""What a finished cache gives back: the structures of the files, by number and by name, from memory-mapped files."""

from __future__ import annotations

import itertools
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protein_model.data.cache import (
    CacheError,
    CacheOptions,
    StructureCache,
    _unique_names,
    build_cache,
    open_cache,
)
from protein_model.data.rows import SCHEMA
from protein_model.structures import read_structure, sequence_of, write_structure
from tests.data.structure_files import EXAMPLES, assert_same_structure, complex_of, copy_examples, pdb_text

TINY = CacheOptions(min_length=3)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> StructureCache:
    """All embedded examples by chain."""
    return build_cache(EXAMPLES[0].parent, tmp_path_factory.mktemp("cache"), num_workers=1, progress=False)


@pytest.fixture(scope="module")
def files_of_complexes(tmp_path_factory, example_structures) -> list[Path]:
    """A file of one, one of two and one of three chains."""
    folder = tmp_path_factory.mktemp("complexes")
    first, second, third = example_structures[2:5]
    write_structure(complex_of("one", {"A": first}), folder / "one.pdb")
    write_structure(complex_of("three", {"heavy": first, "B": second, "a": third}), folder / "three.cif.gz")
    write_structure(complex_of("two", {"B": third, "A": third}), folder / "two.pdb.gz")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def complexes(tmp_path_factory, files_of_complexes) -> StructureCache:
    """These files, one row each."""
    folder = files_of_complexes[0].parent
    options = CacheOptions(unit="complex")
    return build_cache(folder, tmp_path_factory.mktemp("cache"), options, num_workers=1, progress=False)


def test_rows_are_the_chains_of_the_files(cache, example_structures):
    chains = [(path, chain) for path, read in zip(EXAMPLES, example_structures, strict=True) for chain in read.chains()]
    assert len(cache) == len(chains)
    for row, (path, chain) in enumerate(chains):
        assert_same_structure(cache.structure(row), chain)
        assert cache.structure(row).name == cache.names[row] == f"{chain.name}.{chain.chain_ids[0]}"
        assert (cache.sources[row], cache.stems[row]) == (path.name, chain.name)
        assert cache.chain_ids[row] == list(chain.chain_ids)
        assert cache.lengths[row] == len(chain)
        assert cache.sequence(row) == sequence_of(chain.residue_type)
        assert cache.chain_sequences(row) == [cache.sequence(row)]
        np.testing.assert_array_equal(cache[row]["backbone"], chain.coordinates[:, :4], strict=True)


def test_complexes_are_the_files(complexes, files_of_complexes):
    assert complexes.names == ["one", "three", "two"]
    assert complexes.chain_ids == [["A"], ["heavy", "B", "a"], ["B", "A"]]
    for row, path in enumerate(files_of_complexes):
        read = read_structure(path)
        assert_same_structure(complexes.structure(row), read)
        assert complexes.chain_sequences(row) == [sequence_of(chain.residue_type) for chain in read.chains()]
        assert "".join(complexes.chain_sequences(row)) == complexes.sequence(row)
        assert len(np.unique(complexes[row]["chain_index"])) == len(complexes.chain_ids[row])


def test_the_chains_of_complexes_are_the_rows_of_unit_chain(complexes, files_of_complexes, tmp_path):
    chains = build_cache(files_of_complexes[0].parent, tmp_path, num_workers=1, progress=False)
    assert chains.names == ["one.A", "three.heavy", "three.B", "three.a", "two.B", "two.A"]
    expected = [sequence for row in range(len(complexes)) for sequence in complexes.chain_sequences(row)]
    assert [chains.sequence(row) for row in range(len(chains))] == expected
    assert all((arrays["chain_index"] == 0).all() for arrays in chains)
    assert chains.fingerprint != complexes.fingerprint


def test_rows_are_views_into_memory_mapped_files(cache):
    files = {Path(entry["filename"]) for entry in cache.dataset.cache_files}
    assert files == set(cache.folder.glob("shard-*.arrow"))
    for arrays in cache:
        for name in ("backbone", "residue_type", "position", "chain_index", "sidechain", "b_factor"):
            assert not arrays[name].flags.owndata
            assert not arrays[name].flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            arrays["backbone"][0, 0, 0] = 1


def test_the_dataset_has_the_same_rows_in_the_same_order(cache):
    dataset = cache.dataset
    assert dataset.features.arrow_schema.remove_metadata() == SCHEMA
    assert list(dataset["name"]) == cache.names
    for row in (0, 7, len(cache) - 1):
        entry = dataset.with_format("numpy")[row]
        np.testing.assert_array_equal(entry["backbone"].reshape(-1, 4, 3), cache[row]["backbone"])
        np.testing.assert_array_equal(entry["residue_type"], cache[row]["residue_type"])


def test_opened_is_what_was_built(cache):
    opened = open_cache(cache.folder)
    assert (opened.names, opened.fingerprint, opened.options) == (cache.names, cache.fingerprint, cache.options)
    for first, second in zip(cache, opened, strict=True):
        assert first.keys() == second.keys()
        assert all(np.array_equal(first[name], second[name]) for name in first)


def test_a_cache_can_be_moved(cache, tmp_path):
    moved = open_cache(shutil.copytree(cache.folder, tmp_path / "elsewhere"))
    assert (moved.names, moved.fingerprint) == (cache.names, cache.fingerprint)


def test_a_pickled_cache_is_its_folder(cache):
    content = pickle.dumps(cache)
    assert len(content) < 2000
    assert pickle.loads(content).names == cache.names


def test_a_pickled_cache_that_was_rebuilt_meanwhile_is_refused(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.pdb").write_text(pdb_text(4))
    pickled = pickle.dumps(build_cache(data, tmp_path, TINY, num_workers=1, progress=False))
    (data / "a.pdb").write_text(pdb_text(5))
    build_cache(data, tmp_path, TINY, num_workers=1, progress=False)
    with pytest.raises(CacheError, match="rebuilt from changed files while it was in use"):
        pickle.loads(pickled)


def test_numbers_beyond_the_rows_are_refused(cache):
    assert cache.sequence(-1) == cache.sequence(len(cache) - 1)
    for number in (len(cache), -len(cache) - 1):
        with pytest.raises(IndexError, match=f"has {len(cache)} structures"):
            cache[number]


# What --pdb_path can be


def test_a_finished_cache_is_opened_as_it_is(cache, tmp_path):
    for options in (None, CacheOptions()):
        opened = build_cache(cache.folder, tmp_path, options, progress=False)
        assert (opened.names, opened.folder) == (cache.names, cache.folder)
    assert not list(tmp_path.iterdir())


def test_a_finished_cache_with_other_options_is_refused(cache, complexes, tmp_path, capsys):
    with pytest.raises(
        CacheError, match=r"is a finished cache with .*chain.*but .*complex.* is asked for; give the str"
    ):
        build_cache(cache.folder, tmp_path, CacheOptions(unit="complex"), progress=False)
    opened = build_cache(complexes.folder, tmp_path, CacheOptions())  # nothing special is asked for
    assert opened.options.unit == "complex"
    assert "its own settings are used" in capsys.readouterr().err


def test_cache_and_structures_may_lie_in_one_folder(tmp_path):
    copy_examples(tmp_path / "sub", 1)
    first = build_cache(tmp_path, tmp_path, num_workers=1, progress=False)
    assert first.folder.parent == tmp_path
    second = build_cache(tmp_path, tmp_path, num_workers=1, progress=False)
    assert (second.statistics.read, second.folder, second.names) == (0, first.folder, first.names)
    # Not even a cache that is not finished is taken for structures.
    (first.folder / "cache.json").unlink()
    assert build_cache(tmp_path, tmp_path, num_workers=1, progress=False).names == first.names


def test_file_list_and_folder_give_the_same_rows(tmp_path):
    paths = copy_examples(tmp_path / "data", 1)
    folder = build_cache(tmp_path / "data", tmp_path, num_workers=1, progress=False)
    (tmp_path / "data" / "all.txt").write_text("".join(f"{path.name}\n" for path in paths))
    listed = build_cache(tmp_path / "data" / "all.txt", tmp_path, num_workers=1, progress=False)
    assert (listed.names, listed.fingerprint) == (folder.names, folder.fingerprint)
    one = build_cache(paths[3], tmp_path, num_workers=1, progress=False)
    assert one.names == [name for name in folder.names if name.startswith(f"{one.stems[0]}.")]
    assert len({folder.folder, listed.folder, one.folder}) == 3


@pytest.mark.parametrize(
    ("pdb_path", "options", "message"),
    [
        ("absent", {}, "--pdb_path .*absent: there is no such file or folder"),
        (".", {"num_workers": 0}, "--num_workers must be at least 1, but is 0"),
    ],
)
def test_impossible_wishes(tmp_path, pdb_path, options, message):
    (tmp_path / "a.pdb").write_text(pdb_text(4))
    with pytest.raises(CacheError, match=message):
        build_cache(tmp_path / pdb_path, tmp_path, TINY, progress=False, **options)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "a.pdb").write_text(pdb_text(4))
    with pytest.raises(CacheError, match=r"--cache_dir .*a\.pdb.*choose a folder that can be written to"):
        build_cache(tmp_path / "a.pdb", tmp_path / "a.pdb", TINY, num_workers=1, progress=False)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"unit": "residue"}, "--unit must be one of chain, complex"),
        ({"min_length": 0}, "--min_length must be at least 1"),
    ],
)
def test_impossible_options(values, message):
    with pytest.raises(CacheError, match=message):
        CacheOptions(**values)


# chain_set.jsonl


@pytest.fixture(scope="module")
def chain_set(tmp_path_factory, cache) -> Path:
    """The examples' backbones in the layout in which CATH 4.2 is published."""
    path = tmp_path_factory.mktemp("chain_set") / "chain_set.jsonl"
    with open(path, "w", encoding="utf-8") as handle:
        for row, name in enumerate(cache.names):
            backbone = np.where(cache[row]["atom_mask"][:, :4, None], cache[row]["backbone"], np.nan)
            coords = {atom: backbone[:, slot].tolist() for slot, atom in enumerate(("N", "CA", "C", "O"))}
            handle.write(json.dumps({"seq": cache.sequence(row), "coords": coords, "name": name}) + "\n")
    return path


def test_a_chain_set_gives_the_backbones_of_the_same_chains(chain_set, cache, tmp_path):
    published = build_cache(chain_set, tmp_path, num_workers=1, progress=False)
    assert published.names == cache.names
    assert set(published.sources) == {"chain_set.jsonl"}
    for row, arrays in enumerate(published):
        np.testing.assert_array_equal(arrays["backbone"], cache[row]["backbone"])
        np.testing.assert_array_equal(arrays["residue_type"], cache[row]["residue_type"])
        np.testing.assert_array_equal(arrays["atom_mask"][:, :4], cache[row]["atom_mask"][:, :4])
        assert not arrays["atom_mask"][:, 4:].any()
        # Chain breaks are the same; how many residues are missing in between is not in the file.
        np.testing.assert_array_equal(np.diff(arrays["position"]) == 1, np.diff(cache[row]["position"]) == 1)
    assert "1 file, one per chain; 1 block of lines read" in published.summary()
    assert build_cache(chain_set, tmp_path, num_workers=1, progress=False).statistics.read == 0


# Names


def test_names_that_files_share_are_told_apart_by_folder(tmp_path):
    for folder, length in (("train", 4), ("test", 5), ("test/deep", 6)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1abc.pdb").write_text(pdb_text(length))
    write_structure(read_structure(tmp_path / "train/1abc.pdb"), tmp_path / "train/1abc.cif")
    (tmp_path / "train" / "2abc.pdb").write_text(pdb_text(7))
    cache = build_cache(tmp_path, tmp_path, TINY, num_workers=1, progress=False)
    lengths = dict(zip(cache.names, cache.lengths.tolist(), strict=True))
    assert lengths == {
        "test/1abc.A": 5,
        "test/deep/1abc.A": 6,
        "train/1abc.cif/1abc.A": 4,
        "train/1abc.pdb/1abc.A": 4,
        "2abc.A": 7,
    }
    assert cache.renamed == 4
    assert "4 structures share their name" in cache.summary()
    assert list(cache.dataset["name"]) == cache.names


@given(
    st.lists(
        st.tuples(st.sampled_from(["x", "x#2", "x#3", "a/x", "y"]), st.sampled_from(["x.pdb", "a/x.pdb", "a/x.cif"])),
        max_size=8,
    )
)
def test_names_are_unique_and_kept_where_they_are(pairs):
    plain, sources = [name for name, _ in pairs], [source for _, source in pairs]
    names = _unique_names(plain, sources)
    assert len(set(names)) == len(names) == len(plain)
    assert all(own in name for name, own in zip(names, plain, strict=True))
    if len(set(plain)) == len(plain):
        assert names == plain


def test_rows_are_in_the_order_of_files_and_of_chains_in_them(tmp_path):
    for number, chains in itertools.product(range(40), ("BA",)):
        text = "".join(pdb_text(4, chain_id=chain_id).replace("END\n", "") for chain_id in chains)
        (tmp_path / f"f{number:02}.pdb").write_text(text + "END\n")
    cache = build_cache(tmp_path, tmp_path, TINY, num_workers=1, progress=False)
    assert cache.names == [f"f{number:02}.{chain_id}" for number in range(40) for chain_id in "BA"]
