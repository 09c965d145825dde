"""Text files that grow, rotate, are truncated and rewritten, with a watcher that is killed at any time."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lossguard.sources.files.growing_file import GrowingFile, rotated_files
from tests.lossguard.sources.recorded_source import RecordedSource, lines


def texts(file: GrowingFile) -> list[bytes]:
    return [line.text for line in file.read()]


def test_a_link_that_takes_the_place_of_the_file_is_not_followed_out_of_its_folder(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "runs", tmp_path / "private"
    folder.mkdir()
    elsewhere.write_bytes(b"secret\n")
    path = folder / "log"
    path.write_bytes(b"one\n")
    file = GrowingFile(path)
    assert texts(file) == [b"one"]
    path.rename(folder / "log.1")
    path.symlink_to(elsewhere)
    with pytest.raises(OSError, match="a link leads out of its folder"):
        texts(file)
    path.unlink()
    (folder / "new").write_bytes(b"two\n")
    path.symlink_to("new")
    assert texts(file) == [b"two"]
    folder.rename(tmp_path / "moved")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "log").write_bytes(b"secret\n")
    folder.symlink_to("secrets")
    with pytest.raises(OSError, match="a link leads out of its folder"):
        texts(file)


def test_a_rotated_file_is_no_link_to_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "private").write_bytes(b"secret\n")
    (tmp_path / "runs" / "log.1").symlink_to(tmp_path / "private")
    assert rotated_files(tmp_path / "runs" / "log") == []


@pytest.mark.parametrize("new", [b"a\n", b"another text of more than the old length\n", b"onf\n"])
def test_a_truncated_or_overwritten_file_is_read_from_its_beginning(tmp_path: Path, new: bytes) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\n")
    file = GrowingFile(path)
    assert texts(file) == [b"one"]
    path.write_bytes(new)
    os.utime(path, ns=(1, 1))
    (line,) = file.read()
    assert (line.text, line.is_first) == (new.rstrip(), True)


def test_a_file_that_nfs_has_lost_is_followed_by_the_one_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\n")
    file, fstat = GrowingFile(path), os.fstat
    assert texts(file) == [b"one"]
    lost = path.stat()
    path.rename(tmp_path / "elsewhere")  # another client has deleted it

    def of_nfs(fd: int) -> os.stat_result:
        if os.path.samestat(fstat(fd), lost):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return fstat(fd)

    monkeypatch.setattr(os, "fstat", of_nfs)
    assert texts(file) == []
    path.write_bytes(b"two\n")
    (line,) = file.read()
    assert (line.text, line.is_first) == (b"two", True)


def test_reading_goes_on_at_a_position_and_finds_the_file_under_its_new_name(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\ntwo\nthree\n")
    second = list(GrowingFile(path).read())[1]
    assert texts(GrowingFile(path, second.position)) == [b"two", b"three"]
    path.rename(tmp_path / "log.2")
    (tmp_path / "log.1").write_bytes(b"four\n")
    path.write_bytes(b"five\n")
    for age, name in enumerate(["log.2", "log.1", "log"]):
        os.utime(tmp_path / name, ns=(age, age))
    resumed = GrowingFile(path, second.position)
    assert resumed.is_resumed
    assert texts(resumed) == [b"two", b"three", b"four", b"five"]


def test_carriage_returns_end_lines_where_the_format_says_so(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"\rone\rtwo\r")
    assert texts(GrowingFile(path, ends=b"\n\r")) == [b"one", b"two"]


def test_a_long_line_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lossguard.sources.files.growing_file.CHUNK", 8)
    path = tmp_path / "log"
    path.write_bytes(b"x" * 100 + b"\nshort\n")
    assert texts(GrowingFile(path)) == [b"x" * 100, b"short"]


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 120)),
        st.tuples(st.just("rotate"), st.just(0)),
        st.tuples(st.just("resume"), st.integers(2, 6)),
        st.tuples(st.just("poll"), st.just(0)),
        st.tuples(st.just("kill"), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=EVENTS)
def test_each_row_is_recorded_once_whatever_happens(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, int]]
) -> None:
    """Bytes come in random pieces, files are rotated, runs resume further back, and the watcher is killed anywhere."""
    folder = tmp_path_factory.mktemp("watched")
    path = folder / "train.log"
    path.write_bytes(b"a banner\n" + b"".join(lines([(0, 5.0)])))
    os.utime(path, ns=(1_000, 1_000))
    source = RecordedSource("log", path)
    source.poll(final=True)
    expected, pending, step, clock = [(0, 5.0)], b"", 0, 1_000
    for number, (kind, amount) in enumerate(events, 1):
        if kind == "write":
            while len(pending) < amount:
                step += 1
                expected.append((step, round(5.0 + number / 100 + step / 1000, 4)))
                pending += b"".join(lines(expected[-1:]))
            with path.open("ab") as file:
                file.write(pending[:amount])
            pending = pending[amount:]
        elif kind == "rotate" and path.read_bytes().endswith(b"\n"):
            for old in sorted(folder.glob("train.log.*"), reverse=True):
                old.rename(folder / f"train.log.{int(old.suffix[1:]) + 1:03d}")
            path.rename(folder / "train.log.001")
            path.write_bytes(b"")
        elif kind == "resume":
            step -= amount if step >= amount else 0
        elif kind == "poll":
            source.poll()
        elif kind == "kill":
            source.kill()
        clock += 1
        os.utime(path, ns=(clock, clock))
    with path.open("ab") as file:
        file.write(pending)
    os.utime(path, ns=(clock + 1, clock + 1))
    source.poll(final=True)
    assert source.values("loss") == expected
