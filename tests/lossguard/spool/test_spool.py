import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lossguard.spool.lines import Record, from_line, to_line
from lossguard.spool.spool import CHUNK, Spool, new_session, session_of, spools_in
from lossguard.vocabulary.errors import LogOnce

Make = Callable[..., Spool]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes spools in one folder, which are closed at the end of the test."""
    made: list[Spool] = []

    def new(**options: int) -> Spool:
        made.append(Spool(tmp_path / f"{new_session(tmp_path)}.spool", LogOnce(), **options))
        return made[-1]

    yield new
    for spool in made:
        spool.close()


def read(spool: Spool) -> bytes:
    return spool.path.read_bytes()


def test_sessions_sort_by_time(make: Make, tmp_path: Path) -> None:
    made = [make().path for _ in range(5)]
    assert spools_in(tmp_path) == made


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

        monkeypatch.setattr("lossguard.spool.spool.os.write", write)


def test_a_full_disk_loses_nothing_once_there_is_room(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spool, disk = make(), Disk(monkeypatch, room=6)
    for line in (b"one\n", b"two\n", b"three\n"):
        spool.append(line)
    assert read(spool) == b"one\ntw"
    disk.room = 1000
    spool.append(b"four\n")
    assert read(spool) == b"one\ntwo\nthree\nfour\n"
    assert [record.message for record in caplog.records if "cannot be written" in record.message] == [
        f"{spool.path} cannot be written (No space left on device); lines wait in memory"
    ]


@pytest.mark.parametrize(
    ("limit", "room", "lines", "kept"),
    [
        (10, 0, [b"one\n", b"two\n", b"three\n", b"4\n"], b"one\ntwo\n4\n"),  # whole lines are dropped
        (0, 0, [b'{"segment":1}\n', b'{"step":5}\n', b'{"answer":7}\n'], b'{"segment":1}\n{"answer":7}\n'),
        (0, 4, [b'{"step":5}\n'], b'{"step":5}\n'),  # a line that was written in part is completed
    ],
)
def test_a_backlog_that_is_full_keeps_segments_answers_and_the_line_that_was_begun(
    make: Make, monkeypatch: pytest.MonkeyPatch, limit: int, room: int, lines: list[bytes], kept: bytes
) -> None:
    spool, disk = make(backlog_limit=limit), Disk(monkeypatch, room)
    for line in lines:
        spool.append(line)
    disk.room = 1000
    assert spool.retry()
    assert read(spool) == kept


def test_lines_that_are_lost_are_counted_and_reported_once(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spool, disk = make(backlog_limit=20), Disk(monkeypatch, room=0)
    for step in range(1000):
        spool.append(b'{"step":%d}\n' % step)
    assert [record.message.removeprefix(f"{spool.path} cannot be written") for record in caplog.records] == [
        " (No space left on device); lines wait in memory",
        " and the backlog is full: steps are being lost",
    ]
    disk.room = 1000
    spool.append(b'{"step":1000}\n')
    assert f"{spool.path} can be written again; 999 lines were lost meanwhile" in caplog.text
    assert read(spool) == b'{"step":0}\n{"step":1000}\n'


def test_a_disk_that_recovers_takes_the_backlog_in_pieces(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the step at which a full disk recovers would wait for all of it."""
    spool, disk = make(), Disk(monkeypatch, room=0)
    line = b"x" * (CHUNK // 2 - 1) + b"\n"
    for _ in range(6):
        spool.append(line)
    disk.room = 100 * CHUNK
    spool.append(line)
    assert len(read(spool)) == CHUNK
    assert spool.retry()
    assert read(spool) == 7 * line


@pytest.mark.parametrize("code", [errno.EIO, errno.EDQUOT])
def test_an_error_at_close_is_reported_with_what_is_there(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    """NFS writes late: the file may lose what every write had accepted."""
    spool = make()
    for line in (b"one\n", b"two\n"):
        spool.append(line)

    def close(fd: int) -> None:
        spool.path.write_bytes(b"one\n")
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr("lossguard.spool.spool.os.close", close)
        spool.close()
    assert f"may be incomplete ({os.strerror(code)}): 4 of 8 bytes are there" in caplog.text


def test_with_a_limit_a_session_continues_in_files_that_stand_alone(make: Make, tmp_path: Path) -> None:
    spool = make(file_limit=300)
    run: Record = {"run": {"id": "r"}}
    segment: Record = {"segment": 0, "fork_step": 0, "order": 5, "key": "k", "applied": {"a": 1}}
    records: list[Record] = [run, segment, *[{"step": step, "metrics": {}} for step in range(20)]]
    for record in records:
        spool.append(to_line(record))
    files = spools_in(tmp_path)
    assert len(files) > 3
    before = [sum(path.stat().st_size for path in files[:number]) for number in range(len(files))]
    assert [session_of(path) for path in files] == [(session_of(spool.path)[0], size) for size in before]
    contents = [[from_line(line) for line in path.read_bytes().splitlines(True)] for path in files]
    for content in contents[1:]:
        assert content[0] == run | {"repeated": True}
        assert content[1] == segment | {"order": None, "key": None, "applied": None, "repeated": True}
    assert [record for content in contents for record in content if "repeated" not in record] == records


def test_a_file_that_cannot_be_made_leaves_the_session_in_its_file(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = make(file_limit=10)

    def refuse(path: Path) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("lossguard.spool.spool._create", refuse)
        for number in range(5):
            spool.append(to_line({"step": number}))
    assert len(read(spool).splitlines()) == 5
    spool.append(to_line({"step": 5}))
    assert len(spools_in(tmp_path)) == 2
