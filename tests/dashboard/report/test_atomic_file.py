"""A file is written completely or not at all."""

import errno
import os
from pathlib import Path

import pytest

from dashboard.report.atomic_file import CannotWrite, write_atomically


def test_a_name_may_be_as_long_as_the_file_system_takes(tmp_path: Path) -> None:
    target = tmp_path / f"{'r' * (os.pathconf(tmp_path, 'PC_NAME_MAX') - len('.html'))}.html"
    write_atomically(target, lambda part: part.touch())
    assert target.is_file()


def test_a_full_disk_leaves_the_earlier_file_and_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "reports"
    folder.mkdir()
    target = folder / "r.html"
    target.write_text("yesterday's")

    def make(part: Path) -> None:
        part.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(CannotWrite, match=r"cannot write .*r\.html: No space left on device"):
        write_atomically(target, make)
    assert target.read_text() == "yesterday's"
    assert [each.name for each in folder.iterdir()] == ["r.html"]
