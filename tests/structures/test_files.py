"""Names of structure files and what a path stands for."""

from __future__ import annotations

import gzip
import os

import pytest

from protein_model.errors import UserError
from protein_model.structures import StructureError, find_structure_files, missing_files, structure_name
from protein_model.structures.files import read_content, sniff_format


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("1abc.pdb", "1abc"),
        ("x/1ABC.PDB.GZ", "1ABC"),
        ("12as.A.cif", "12as.A"),
        ("a.mmcif.gz", "a"),
        ("b.txt", "b.txt"),
    ],
)
def test_name(file, name):
    assert structure_name(file) == name


def test_folder_list_and_file(tmp_path):
    for name in ("b.pdb", "sub/a.cif.gz", "sub/note.txt", ".hidden.pdb", "c.ent"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    found = find_structure_files(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["b.pdb", "c.ent", "sub/a.cif.gz"]
    assert find_structure_files(tmp_path / "b.pdb") == [tmp_path / "b.pdb"]
    (tmp_path / "some.txt").write_text("# two of them\nsub/a.cif.gz\n\nb.pdb  # with a comment\n")
    assert find_structure_files(tmp_path / "some.txt") == [tmp_path / "sub/a.cif.gz", tmp_path / "b.pdb"]


def test_links_that_lead_in_a_circle_are_followed_once(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.pdb").touch()
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    (tmp_path / "data" / ".hidden").mkdir()
    (tmp_path / "data" / ".hidden" / "b.pdb").touch()
    assert find_structure_files(tmp_path / "data") == [tmp_path / "data" / "a.pdb"]


def test_what_a_list_names_that_is_no_file(tmp_path):
    (tmp_path / "b.pdb").touch()
    (tmp_path / "sub").mkdir()
    paths = tmp_path / "some.txt"
    paths.write_text("# some\nb.pdb\n\nabsent.pdb  # gone\nsub\nabsent.pdb\n~nobody_of_this_name/c.pdb\n")
    assert len(find_structure_files(paths)) == 5
    assert missing_files(paths) == {
        tmp_path / "absent.pdb": f"{paths}, line 4: there is no file {tmp_path / 'absent.pdb'}; correct the line or "
        "remove it (paths are relative to the folder of the list)",
        tmp_path / "sub": f"{paths}, line 5: {tmp_path / 'sub'} is a folder; list its files one by one",
        tmp_path / "~nobody_of_this_name/c.pdb": f"{paths}, line 7: there is no file "
        f"{tmp_path / '~nobody_of_this_name/c.pdb'}; correct the line or remove it (paths are relative to the folder "
        "of the list)",
    }
    assert missing_files(tmp_path) == missing_files(tmp_path / "b.pdb") == missing_files(tmp_path / "absent.txt") == {}


def test_nothing_found(tmp_path):
    with pytest.raises(UserError, match="no structure file found"):
        find_structure_files(tmp_path)
    with pytest.raises(UserError, match="no such file or folder"):
        find_structure_files(tmp_path / "absent")


def test_a_list_that_is_no_text_is_named(tmp_path):
    (tmp_path / "paths.txt").write_bytes("prot\xe9ine.pdb\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"paths\.txt: a list of paths must be UTF-8 text"):
        find_structure_files(tmp_path / "paths.txt")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"data_1ABC\n", "mmcif"),
        (b"# data_x\n\n#\n  DATA_x\n", "mmcif"),
        (b"HEADER    data_\n", "pdb"),
        (b"REMARK\ndata_x\n", "pdb"),
        (gzip.compress(b"data_x", mtime=0), "pdb"),
    ],
)
def test_format(content, kind):
    assert sniff_format(content) == kind


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.pdb")
    with pytest.raises(StructureError, match=r"a\.pdb: is no regular file"):
        read_content(tmp_path / "a.pdb")
