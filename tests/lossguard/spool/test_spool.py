import errno
import os
from pathlib import Path
from typing import Any

import pytest

from lossguard.spool.lines import Record, from_line, to_line
from lossguard.spool.spool import CHUNK, Spool, new_session, session_of, spools_in
from lossguard.vocabulary.errors import LogOnce


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

        monkeypatch.setattr("lossguard.spool.spool.os.write", write)


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


def test_lines_that_are_lost_are_counted_and_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spool = make(tmp_path, backlog_limit=20)
    disk = Disk(monkeypatch, room=0)
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
    spool.close()


def test_segments_and_answers_stay_in_memory_when_steps_no_longer_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = make(tmp_path, backlog_limit=0)
    disk = Disk(monkeypatch, room=0)
    for line in (b'{"segment":1}\n', b'{"step":5}\n', b'{"answer":7}\n'):
        spool.append(line)
    disk.room = 1000
    assert spool.retry()
    assert read(spool) == b'{"segment":1}\n{"answer":7}\n'
    spool.close()


def test_a_line_that_was_written_in_part_is_completed_though_the_backlog_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = make(tmp_path, backlog_limit=0)
    disk = Disk(monkeypatch, room=4)
    spool.append(b'{"step":5}\n')
    disk.room = 1000
    assert spool.retry()
    assert read(spool) == b'{"step":5}\n'
    spool.close()


def test_a_disk_that_recovers_takes_the_backlog_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the step at which a full disk recovers would wait for all of it."""
    spool = make(tmp_path)
    disk = Disk(monkeypatch, room=0)
    line = b"x" * (CHUNK // 2 - 1) + b"\n"
    for _ in range(6):
        spool.append(line)
    disk.room = 100 * CHUNK
    spool.append(line)
    assert len(read(spool)) == CHUNK
    assert spool.retry()
    assert read(spool) == 7 * line
    spool.close()


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_an_error_at_close_is_reported_with_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    """NFS writes late: the file may lose what every write had accepted."""
    spool = make(tmp_path)
    spool.append(b"one\n")
    spool.append(b"two\n")
    real = os.close

    def close(fd: int) -> None:
        real(fd)
        spool.path.write_bytes(b"one\n")
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("lossguard.spool.spool.os.close", close)
    spool.close()
    assert f"may be incomplete ({os.strerror(code)}): 4 of 8 bytes are there" in caplog.text


def test_with_a_limit_a_session_continues_in_files_that_stand_alone(tmp_path: Path) -> None:
    spool = make(tmp_path, file_limit=300)
    run: Record = {"run": {"id": "r"}}
    segment: Record = {"segment": 0, "fork_step": 0, "order": 5, "key": "k", "applied": {"a": 1}}
    records: list[Record] = [run, segment, *[{"step": step, "metrics": {}} for step in range(20)]]
    for record in records:
        spool.append(to_line(record))
    spool.close()
    files = spools_in(tmp_path)
    assert len(files) > 3
    assert {session_of(path)[0] for path in files} == {session_of(spool.path)[0]}
    assert [session_of(path)[1] for path in files] == [
        sum(path.stat().st_size for path in files[:number]) for number in range(len(files))
    ]
    contents = [[from_line(line) for line in path.read_bytes().splitlines(True)] for path in files]
    for content in contents[1:]:
        assert content[0] == run | {"repeated": True}
        assert content[1] == segment | {"order": None, "key": None, "applied": None, "repeated": True}
    assert [record for content in contents for record in content if "repeated" not in record] == records


def test_a_file_that_cannot_be_made_leaves_the_session_in_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = make(tmp_path, file_limit=10)

    def refuse(path: Path) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("lossguard.spool.spool._create", refuse)
        for number in range(5):
            spool.append(to_line({"step": number}))
    assert len(read(spool).splitlines()) == 5
    spool.append(to_line({"step": 5}))
    assert len(spools_in(tmp_path)) == 2
    spool.close()
