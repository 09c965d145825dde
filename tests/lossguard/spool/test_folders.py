import os
from pathlib import Path

import pytest

from lossguard.spool.folders import make_folder, open_private


def mode(path: Path) -> str:
    return oct(path.stat().st_mode & 0o777)


def test_folders_that_are_missing_are_made_for_their_owner_and_others_stay_as_they_are(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert [mode(tmp_path / path) for path in (".", "a", "a/b")] == ["0o755", "0o700", "0o700"]


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        make_folder(tmp_path / "file" / "a")


def test_a_new_file_is_its_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        os.close(open_private(str(tmp_path / "file"), os.O_WRONLY | os.O_CREAT))
    finally:
        os.umask(before)
    assert mode(tmp_path / "file") == "0o600"
