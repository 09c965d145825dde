import errno
import os
from pathlib import Path
from typing import Any

import pytest

from lossguard.log_once import LogOnce
from lossguard.spooling.spool import Spool, new_session, spools_in


def make(folder: Path, **options: int) -> Spool:
    return Spool(folder / f"{new_session(folder)}.spool", LogOnce(), **options)


def read(spool: Spool) -> bytes:
    return spool.path.read_bytes()


def test_sessions_sort_by_time(tmp_path: Path) -> None:
    made = [make(tmp_path) for _ in range(5)]
    assert spools_in(tmp_path) == [spool.path for spool in made]
    for spool in made:
        spool.close()


def test_each_line_is_in_the_file_when_append_returns(tmp_path: Path) -> None:
    spool = make(tmp_path)
    spool.append(b"one\n")
    assert read(spool) == b"one\n"
    spool.close()


class Disk:
    """Stands for os.write on a disk with `room` bytes left."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room = room
        real = os.write

        def write(fd: int, data: Any) -> int:
            if self.room == 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            written = real(fd, data[: self.room])
            self.room -= written
            return written

        monkeypatch.setattr("lossguard.spooling.spool.os.write", write)


def test_a_full_disk_loses_nothing_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spool = make(tmp_path)
    disk = Disk(monkeypatch, room=6)
    for line in (b"one\n", b"two\n", b"three\n"):
        spool.append(line)
    assert read(spool) == b"one\ntw"
    disk.room = 1000
    spool.append(b"four\n")
    assert read(spool) == b"one\ntwo\nthree\nfour\n"
    assert [record.message for record in caplog.records if "cannot be written" in record.message] == [
        f"{spool.path} cannot be written (No space left on device); lines wait in memory"
    ]
    spool.close()


def test_the_backlog_has_a_limit_and_drops_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spool = make(tmp_path, backlog_limit=10)
    disk = Disk(monkeypatch, room=0)
    for line in (b"one\n", b"two\n", b"three\n", b"4\n"):
        spool.append(line)
    disk.room = 1000
    assert spool.retry()
    assert read(spool) == b"one\ntwo\n4\n"
    assert "steps are being lost" in caplog.text
    spool.close()
