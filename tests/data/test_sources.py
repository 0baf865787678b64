"""What `--pdb_path` can be, and which files it stands for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from protein_model.data.cache import CacheOptions, build_cache
from protein_model.data.errors import CacheError
from protein_model.data.sources import is_cache_folder, list_sources
from tests.data.structure_files import pdb_text


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")


def paths(pdb_path: Path) -> list[str]:
    return [file.path for file in list_sources(pdb_path).files]


def test_folder_is_searched_recursively_for_all_endings(tmp_path):
    wanted = ["a.pdb", "b.ENT", "deep/d.mmcif", "deep/e.pdb.gz", "deep/er/c.cif.gz"]
    touch(tmp_path, *wanted, "f.txt", "g.pdb.zip", ".hidden.pdb", ".git/h.pdb", "readme.md", "cifs")
    sources = list_sources(tmp_path)
    assert [file.path for file in sources.files] == wanted
    assert all(file.location == tmp_path / file.path for file in sources.files)
    assert (sources.kind, sources.unusable, sources.repeated) == ("folder", [], 0)


def test_order_is_that_of_the_paths_whatever_the_file_system_says(tmp_path):
    names = [f"{letter}{number}.pdb" for number in (10, 9, 1) for letter in "zAb"]
    touch(tmp_path, *names)
    assert paths(tmp_path) == sorted(names)


def test_links_that_lead_in_a_circle_are_followed_once(tmp_path):
    touch(tmp_path, "data/a.pdb", "elsewhere/b.pdb")
    (tmp_path / "data/loop").symlink_to(tmp_path / "data")
    (tmp_path / "data/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/second_link").symlink_to(tmp_path / "elsewhere")
    assert paths(tmp_path / "data") == ["a.pdb", "link/b.pdb"]


def test_finished_caches_inside_are_left_out(tmp_path):
    (tmp_path / "a.pdb").write_text(pdb_text(5))
    cache = build_cache(tmp_path, tmp_path, CacheOptions(min_length=3), num_workers=1, progress=False)
    assert is_cache_folder(cache.folder)
    touch(cache.folder, "stray.pdb")
    assert paths(tmp_path) == ["a.pdb"]


def test_one_file(tmp_path):
    touch(tmp_path, "a.pdb", "b.cif.gz", "chain_set.jsonl")
    for name, kind in (("a.pdb", "file"), ("b.cif.gz", "file"), ("chain_set.jsonl", "chain_set")):
        sources = list_sources(tmp_path / name)
        assert (sources.kind, [file.path for file in sources.files]) == (kind, [name])


def test_list_of_paths(tmp_path, monkeypatch):
    touch(tmp_path, "lists/a.pdb", "lists/sub/b.cif", "other/c.ent.gz", "other/d.zip", "home/e.pdb")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "lists/train.txt").write_text(
        "# my structures\n"
        "a.pdb\n"
        "  sub/b.cif   # a comment\r\n"
        "\n"
        "../other/c.ent.gz\n"
        "~/e.pdb\n"
        f"{tmp_path}/lists/a.pdb\n"
        "sub/../a.pdb\n"
        "absent.pdb\n"
        "../other/d.zip\n"
        "sub\n"
        "absent.pdb\n"
    )
    sources = list_sources(tmp_path / "lists/train.txt")
    outside = [f"{tmp_path}/home/e.pdb", f"{tmp_path}/other/c.ent.gz"]
    assert [file.path for file in sources.files] == sorted(["a.pdb", "sub/b.cif", *outside])
    assert all(file.location.is_file() for file in sources.files)
    assert sources.repeated == 3
    reasons = {line.file: line.kind for line in sources.unusable}
    assert set(reasons) == {"absent.pdb", f"{tmp_path}/other/d.zip", "sub"}
    assert reasons["absent.pdb"] == "listed file does not exist"
    assert reasons["sub"].startswith("listed path is a folder")


def test_a_list_stands_for_the_same_files_however_it_is_named(tmp_path, monkeypatch):
    touch(tmp_path, "a.pdb", "b.pdb")
    (tmp_path / "train.list").write_text(f"a.pdb\n{tmp_path / 'b.pdb'}\n")
    monkeypatch.chdir(tmp_path)
    assert paths(Path("train.list")) == paths(tmp_path / "train.list") == ["a.pdb", "b.pdb"]


@pytest.mark.parametrize(
    ("files", "pdb_path", "message"),
    [
        ([], "absent", "no such file or folder"),
        (["note.md"], ".", "no structure file found; searched for .pdb, .ent"),
        (["note.md"], "note.md", "unknown kind of file; give a folder"),
        (["chain_set.jsonl"], ".", "to train on chain_set.jsonl, name the file itself"),
    ],
)
def test_nothing_to_read_is_said_with_what_to_do(tmp_path, files, pdb_path, message):
    touch(tmp_path, *files)
    with pytest.raises(CacheError, match=message):
        list_sources(tmp_path / pdb_path)


def test_a_list_of_absent_files_says_what_paths_are_relative_to(tmp_path):
    (tmp_path / "list.txt").write_text("gone.pdb\n")
    with pytest.raises(CacheError, match=r"gone\.pdb: listed file does not exist\).*relative to the folder"):
        list_sources(tmp_path / "list.txt")


def test_a_folder_of_caches_points_to_the_cache(tmp_path):
    touch(tmp_path / "data", "a.pdb")
    (tmp_path / "data/a.pdb").write_text(pdb_text(5))
    cache = build_cache(tmp_path / "data", tmp_path / "caches", CacheOptions(min_length=3), 1, progress=False)
    with pytest.raises(CacheError, match=f"finished cache, name its folder: --pdb_path .*{cache.folder.name}"):
        list_sources(tmp_path / "caches")
    (cache.folder / "cache.json").unlink()
    with pytest.raises(CacheError, match=r"shards of a cache lie there, but not its cache\.json: copy the cache again"):
        list_sources(cache.folder)


def test_names_that_are_not_utf8_are_reported(tmp_path):
    touch(tmp_path, "good.pdb")
    bad = os.fsencode(tmp_path) + b"/b\xe4d.pdb"
    try:
        with open(bad, "w") as handle:
            handle.write("x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    sources = list_sources(tmp_path)
    assert [file.path for file in sources.files] == ["good.pdb"]
    assert [(line.file, line.kind) for line in sources.unusable] == [
        ("b\\xe4d.pdb", "file name is not UTF-8; rename the file")
    ]
    with pytest.raises(CacheError, match="not UTF-8"):
        list_sources(Path(os.fsdecode(bad)))
