"""A spool is read by offset, whatever its file and the file of its offset contain."""

import zlib
from pathlib import Path

import pytest

from lossguard.spool import spool_reader
from lossguard.spool.lines import Record, to_line
from lossguard.spool.spool_reader import AcknowledgedOffset, SpoolReader, acknowledged


def test_a_line_longer_than_the_window_is_read_whole_and_a_torn_last_line_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.spool"
    path.write_bytes(b"x" * 1000 + b"\ny\nthr")
    with SpoolReader(path) as reader:
        assert reader.raw_lines(0, size=10) == [(0, b"x" * 1000 + b"\n"), (1001, b"y\n")]


def test_a_line_longer_than_the_window_is_found_from_the_end_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_reader, "WINDOW", 64)
    path = tmp_path / "a.spool"
    records: list[Record] = [{"run": {"id": "r"}}, {"event": "x" * 1000}, {"finish": "finished"}]
    path.write_bytes(b"".join(map(to_line, records)) + b'{"step"')
    with SpoolReader(path) as reader:
        assert list(reader.newest_first()) == records[::-1]
        assert list(reader.newest_first(len(to_line(records[0])))) == records[:1]


def test_the_acknowledged_offset_survives_the_process(tmp_path: Path) -> None:
    path = tmp_path / "a.spool"
    path.write_bytes(b"one\ntwo\n")
    offset = AcknowledgedOffset(path)
    offset.save(4)
    offset.close()
    assert acknowledged(path) == 4


@pytest.mark.parametrize(
    "saved",
    [
        *(b"%b %08x\n" % (digits, zlib.crc32(digits)) for digits in (b"9" * 20, b"%020d" % 9999, b"%020d" % 3)),
        b"%020d 00000000\n" % 4,
        b"%020d\n" % 4,
        b"many\n",
        b"",
        b"\0" * 21,
    ],
)
def test_an_acknowledged_offset_that_cannot_be_right_means_deliver_again(tmp_path: Path, saved: bytes) -> None:
    (tmp_path / "a.spool").write_bytes(b"one\ntwo\n")
    (tmp_path / "a.acknowledged").write_bytes(saved)
    assert acknowledged(tmp_path / "a.spool") == 0
