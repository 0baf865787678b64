"""Names of inputs and outputs of a folder of designs."""

from __future__ import annotations

import errno
import os

import pytest

from protein_model.errors import UserError
from protein_model.inference.folders import OutputError, output_names, write_text, written_whole


def test_files_of_one_name_are_told_apart_by_folder_also_where_links_lead_to_one_file_or_in_a_circle(tmp_path):
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
    (tmp_path / "a/x.pdb").touch()
    (tmp_path / "b/x.pdb").symlink_to(tmp_path / "a/x.pdb")
    (tmp_path / "c/x.pdb").symlink_to(tmp_path / "c/x.pdb")
    files = [tmp_path / folder / "x.pdb" for folder in ("a", "b", "c")]
    assert output_names(files) == ["a__x.pdb", "b__x.pdb", "c__x.pdb"]


def test_one_file_twice_is_refused(tmp_path):
    with pytest.raises(UserError, match="the same file"):
        output_names([tmp_path / "x.pdb", tmp_path / "y/../x.pdb"])


def test_what_could_not_be_written_is_named_and_nothing_is_left_of_it(tmp_path):
    write_text(tmp_path / "a.csv", "first")
    refused = pytest.raises(OutputError, match=r"a\.csv: cannot be written: No space left on device")
    with refused, written_whole(tmp_path / "a.csv") as temporary:
        temporary.write_text("sec")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert (tmp_path / "a.csv").read_text() == "first"
    assert list(tmp_path.iterdir()) == [tmp_path / "a.csv"]
