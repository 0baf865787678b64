"""Errors in words."""

import errno
import os
from pathlib import Path

import pytest

from protein_model.errors import in_words


def test_a_file_that_is_not_there_is_named_without_a_number(tmp_path):
    with pytest.raises(OSError) as caught:
        Path(tmp_path / "a.pdb").read_bytes()
    assert in_words(caught.value) == f"{tmp_path / 'a.pdb'}: No such file or directory"


def test_a_full_disk_is_told_without_a_number():
    assert in_words(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) == "No space left on device"


def test_of_two_files_the_one_that_is_written_to_is_named():
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "from", None, "to")
    assert in_words(error) == "to: No space left on device"


def test_other_errors_become_one_line():
    assert in_words(ValueError("two\n  lines")) == "two lines"
