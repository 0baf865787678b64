"""`python -m protein_model cache`: what it prints, and how it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from protein_model.__main__ import main
from protein_model.data.cache import open_cache
from tests.data.structure_files import copy_examples


def test_it_prints_the_folder_of_the_cache_and_a_summary(tmp_path, capsys):
    copy_examples(tmp_path / "data", 1)
    (tmp_path / "data" / "empty.pdb").touch()
    command = [
        "cache",
        "--pdb_path",
        str(tmp_path / "data"),
        "--cache_dir",
        str(tmp_path / "cache"),
        "--num_workers",
        "1",
    ]
    assert main(command) == 0
    output, errors = capsys.readouterr()
    folder = Path(output.strip())
    cache = open_cache(folder)
    assert folder.parent == tmp_path / "cache"
    assert len(cache) == 8
    lines = errors.splitlines()
    assert lines[0].startswith(f"8 structures with {int(cache.lengths.sum()):,} residues from 9 files, one per chain; ")
    assert lines[1:] == [
        f"not used: 1 whole file and 0 parts of files, all listed in {folder / 'report.tsv'}",
        "       1 x file is empty",
        f"cache: {folder}",
    ]
    assert main(command) == 0
    output, errors = capsys.readouterr()
    assert Path(output.strip()) == folder
    assert "; 0 files read, 9 unchanged, " in errors


def test_options_reach_the_cache(tmp_path, capsys):
    copy_examples(tmp_path / "data", 1)
    command = ["cache", "--pdb_path", str(tmp_path / "data"), "--cache_dir", str(tmp_path), "--num_workers", "1"]
    assert main([*command, "--unit", "complex", "--min_length", "100"]) == 0
    cache = open_cache(capsys.readouterr().out.strip())
    assert (cache.options.unit, cache.options.min_length) == ("complex", 100)
    assert cache.lengths.min() >= 100
    assert 0 < len(cache) < 8


def test_a_cache_at_an_address_is_fetched_whole(tmp_path, capsys):
    copy_examples(tmp_path / "data", 1)
    command = ["cache", "--cache_dir", str(tmp_path / "there"), "--num_workers", "1", "--pdb_path"]
    assert main([*command, str(tmp_path / "data")]) == 0
    there = Path(capsys.readouterr().out.strip())
    command[2] = str(tmp_path / "here")
    assert main([*command, f"file://{there}"]) == 0
    output, errors = capsys.readouterr()
    here = Path(output.strip())
    assert here.parent == tmp_path / "here"
    assert open_cache(here).names == open_cache(there).names
    assert "8 structures with 797 residues in 2 shards (0.1 MB) at file://" in errors
    assert "2 of 2 shards that are read here, 0.1 MB, fetched in " in errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pdb_path", "absent"], "error: --pdb_path absent: there is no such file or folder\n"),
        (["--pdb_path", ".", "--min_length", "0"], "error: --min_length must be at least 1, but is 0\n"),
        (["--pdb_path", ".", "--num_workers", "0"], "error: --num_workers must be at least 1, but is 0\n"),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    assert main(["cache", *options]) == 2
    assert capsys.readouterr().err == message
