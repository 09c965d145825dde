"""A spool is read by offset, whatever its file and the file of its offset contain."""

from pathlib import Path

import pytest

from lossguard.spool import spool_reader
from lossguard.spool.lines import Record, to_line
from lossguard.spool.spool_reader import AcknowledgedOffset, SpoolReader, acknowledged


def test_a_torn_last_line_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.spool"
    path.write_bytes(b"one\ntwo\nthr")
    reader = SpoolReader(path)
    assert reader.raw_lines(0) == [(0, b"one\n"), (4, b"two\n")]
    reader.close()


def test_a_line_longer_than_the_window_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.spool"
    path.write_bytes(b"x" * 1000 + b"\ny\n")
    reader = SpoolReader(path)
    assert reader.raw_lines(0, size=10)[0] == (0, b"x" * 1000 + b"\n")
    reader.close()


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


@pytest.mark.parametrize("content", [b"", b"garbage"])
def test_a_damaged_offset_means_deliver_again(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.spool").write_bytes(b"one\n")
    (tmp_path / "a.acknowledged").write_bytes(content)
    assert acknowledged(tmp_path / "a.spool") == 0
