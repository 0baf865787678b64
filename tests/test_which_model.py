"""A name or a path -> the folder of a model, or a message that says what there is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from protein_model.which_model import ModelNotFound, find_model, is_bare_name, model_digest, shipped_models


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty working folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def make_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_only_whole_models_ship_in_order_of_their_names(ship, tmp_path):
    weights = ship(recovery=make_model(tmp_path / "a"), design=make_model(tmp_path / "b"))
    (weights / "unfinished").mkdir()
    (weights / "unfinished" / "config.json").write_text("{}")
    (weights / "notes.txt").write_text("no model")
    assert shipped_models() == {"design": weights / "design", "recovery": weights / "recovery"}


def test_a_bare_name_is_shipped_and_anything_else_is_a_path(ship, here, tmp_path):
    weights = ship(design=make_model(tmp_path / "design"))
    own = make_model(here / "design")
    other = make_model(here / "other")
    assert find_model("design") == weights / "design"
    for own_name in ("./design", "design/", str(own), Path("design")):
        assert find_model(own_name).resolve() == own.resolve()
    assert find_model("other").resolve() == other.resolve()  # a bare name of a folder, where none ships under it


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("desing", r"--start_from desing: is neither a model that this package ships \(design\) nor a folder"),
        ("empty", r"--start_from empty: has no config.json; give .* ships \(design\)"),
        ("./absent", r"--start_from absent: has no config.json"),
        ("/absent/model", r"--start_from /absent/model: has no config.json"),
    ],
)
def test_what_is_no_model_is_named_with_what_ships(ship, here, tmp_path, given, message):
    ship(design=make_model(tmp_path / "design"))
    (here / "empty").mkdir()
    with pytest.raises(ModelNotFound, match=message):
        find_model(given, "--start_from")


def test_a_package_without_models_says_so(ship, here):
    ship()
    assert shipped_models() == {}
    with pytest.raises(ModelNotFound, match=r"--model design: .* \(it ships none\)"):
        find_model("design")


@pytest.mark.parametrize("name", ["design", "a-b_c.1"])
def test_bare_names(name):
    assert is_bare_name(name)


@pytest.mark.parametrize("path", ["./design", "design/", "org/name", "/design", "..", ".", "~design", "a\\b", ""])
def test_paths_and_repositories_are_no_bare_names(path):
    assert not is_bare_name(path)


def test_the_digest_is_that_of_the_content_and_not_of_the_place(tmp_path):
    folder = make_model(tmp_path / "a")
    copy = tmp_path / "b"
    shutil.copytree(folder, copy)
    assert model_digest(folder) == model_digest(copy)
    (copy / "README.md").write_text("a card is no part of it")
    assert model_digest(folder) == model_digest(copy)
    for name in ("config.json", "model.safetensors"):
        before = model_digest(copy)
        (copy / name).write_bytes((copy / name).read_bytes() + b" ")
        assert model_digest(copy) != before
