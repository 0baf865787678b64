"""Which files count as unchanged without being read again, and which do not."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from protein_model.data.chain_set import LINES_PER_BLOCK
from protein_model.data.inventory import SETTLING_TIME_NS, SourceItem, hashed, take_inventory
from protein_model.data.sources import list_sources


def item_of(path: Path) -> SourceItem:
    return hashed(SourceItem(path.name, str(path)))


def later(item: SourceItem) -> SourceItem:
    """As if it had been hashed long after it was written."""
    return replace(item, hashed_ns=item.hashed_ns + SETTLING_TIME_NS)


def known_digest(folder: Path, recorded: SourceItem) -> str | None:
    [item] = take_inventory(list_sources(folder), [recorded.to_json()])
    return item.digest


@pytest.fixture
def path(tmp_path) -> Path:
    (tmp_path / "a.pdb").write_text("ATOM")
    return tmp_path / "a.pdb"


def test_an_item_comes_back_from_json_as_it_was(path):
    item = item_of(path)
    assert item.digest == hashlib.blake2b(b"ATOM", digest_size=16).hexdigest()
    assert SourceItem.from_json(item.to_json(), item.location) == item


def test_an_unchanged_file_keeps_its_hash(path, tmp_path):
    item = later(item_of(path))
    assert item.settled
    assert known_digest(tmp_path, item) == item.digest


def test_a_hash_that_was_taken_right_after_a_change_is_taken_again(path, tmp_path):
    item = item_of(path)
    assert not item.settled
    assert known_digest(tmp_path, item) is None


def write_again(path: Path) -> None:
    path.write_text("MOTA")


def change_times(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def replace_by_another(path: Path) -> None:
    other = path.with_name("other")
    other.write_text("MOTA")
    status = path.stat()
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize("change", [write_again, change_times, replace_by_another])
def test_any_change_makes_the_hash_unknown(path, tmp_path, change):
    item = later(item_of(path))
    change(path)
    assert known_digest(tmp_path, item) is None


def test_a_file_that_cannot_be_read_has_a_reason_and_is_tried_again(tmp_path):
    (tmp_path / "a.pdb").symlink_to("nowhere")
    item = item_of(tmp_path / "a.pdb")
    assert item.problem == "No such file or directory"
    assert known_digest(tmp_path, later(item)) is None
    (tmp_path / "a.pdb").unlink()
    (tmp_path / "a.pdb").write_text("ATOM")
    assert item_of(tmp_path / "a.pdb").problem is None


def test_blocks_of_a_chain_set_are_hashed_one_by_one(tmp_path):
    path = tmp_path / "chain_set.jsonl"
    lines = [f'{{"name": "{number}"}}\n' for number in range(2 * LINES_PER_BLOCK + 5)]
    path.write_text("".join(lines))
    items = take_inventory(list_sources(path), [])
    assert [item.block for item in items] == [0, 1, 2]
    assert sum(item.length or 0 for item in items) == path.stat().st_size
    lines[LINES_PER_BLOCK] = '{"name": "x"}\n'
    path.write_text("".join(lines))
    again = take_inventory(list_sources(path), [later(item).to_json() for item in items])
    assert [a.digest == b.digest for a, b in zip(items, again, strict=True)] == [True, False, True]
    # As long as nothing changes, the file is not read.
    settled = [later(item) for item in again]
    assert take_inventory(list_sources(path), [item.to_json() for item in settled]) == settled
    # What was recorded of a part of it, because a build was stopped, does not stand for the whole.
    assert len(take_inventory(list_sources(path), [item.to_json() for item in settled[:2]])) == 3


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.pdb")
    assert "no regular file" in item_of(tmp_path / "a.pdb").problem
