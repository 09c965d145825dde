"""Delivered spools become smaller and lose nothing that a run, a replay or a collector still needs."""

import errno
import gzip
import os
from pathlib import Path
from threading import Event, Thread, current_thread
from typing import IO, Any

import pytest

import lossguard
from lossguard.delivery.sender import Sender
from lossguard.spool import archive
from lossguard.spool.archive import Keep, restore, trim
from lossguard.spool.folders import lock_file
from lossguard.spool.history import History
from lossguard.spool.set_aside import SetAside
from lossguard.spool.spool import spools_in
from lossguard.spool.spool_reader import AcknowledgedOffset
from lossguard.vocabulary.errors import LogOnce
from lossguard.vocabulary.states import SegmentReason
from tests.lossguard.collectors import FakeCollector
from tests.lossguard.delivery.direct import DirectClient, deliver
from tests.lossguard.recorded import offline
from tests.lossguard.scripted import rollback
from tests.waiting import eventually

APPLIED = {"rewound_to": 50, "skip_from": 60, "skip_to": 90, "lr_scale": 0.5, "reason": "spike"}


def recorded(folder: Path, num_steps: int = 100) -> Path:
    """The folder of a finished run with answered orders."""
    with offline(folder, run_id="r") as run:
        for step in range(num_steps):
            run.log(step, loss=float(step))
        run.refuse(rollback(1), "no checkpoint")
        run.open_segment(50, SegmentReason.ROLLBACK, rollback(2), APPLIED)
        run.log(50, loss=-1.0)
    assert run.directory is not None
    return run.directory


def delivered(folder: Path, num_steps: int = 100) -> Path:
    directory = recorded(folder, num_steps)
    assert deliver(directory, FakeCollector()).delivered
    return directory


def trimmed(directory: Path, keep: Keep) -> int:
    return len(list(trim(directory, keep)))


def read(directory: Path) -> tuple[History, list[tuple[str, dict[str, Any]]]]:
    """All that a resumed run or a replay learns from a folder."""
    return History.read(directory), list(lossguard.read_spools(directory))


@pytest.mark.parametrize("keep", [Keep.COMPRESSED, Keep.UNDELIVERED])
def test_a_resumed_run_knows_after_trimming_what_it_knew_before(tmp_path: Path, keep: Keep) -> None:
    directory = delivered(tmp_path)
    before = History.read(directory)
    assert before.answered == {"k1", "k2"}
    assert trimmed(directory, keep) == 1
    assert spools_in(directory) == []
    assert History.read(directory) == before
    with offline(tmp_path, run_id="r") as run:
        assert run.history == before
        run.log(51, loss=1.0)
    assert next(session for session, _ in lossguard.read_spools(directory)) < spools_in(directory)[0].stem


def test_a_compressed_spool_can_be_trimmed_further(tmp_path: Path) -> None:
    directory = delivered(tmp_path)
    before = History.read(directory)
    assert [trimmed(directory, each) for each in (Keep.COMPRESSED, Keep.UNDELIVERED, Keep.UNDELIVERED)] == [1, 1, 0]
    assert list(directory.glob("*.spool*")) == []
    assert History.read(directory) == before


def test_a_compressed_spool_is_read_as_before_and_restored_byte_for_byte(tmp_path: Path) -> None:
    directory = delivered(tmp_path)
    (spool,) = spools_in(directory)
    content, known = spool.read_bytes(), read(directory)
    trimmed(directory, Keep.COMPRESSED)
    assert gzip.decompress(spool.with_suffix(".spool.gz").read_bytes()) == content
    assert read(directory) == known
    assert list(restore(directory)) == [spool]
    assert spool.read_bytes() == content
    assert sorted(path.name for path in directory.glob("*spool*")) == [spool.name]
    assert not list(directory.glob("*.control"))


def test_without_delivered_steps_what_is_left_is_small_and_private(tmp_path: Path) -> None:
    directory = delivered(tmp_path, 2000)
    ((spool, before, after),) = trim(directory, Keep.UNDELIVERED)
    assert after < before / 50
    assert not spool.exists()
    assert {oct(path.stat().st_mode & 0o777) for path in directory.glob("*.control")} == {"0o600"}


@pytest.mark.parametrize("num_bytes", [0, 200, -1])
def test_what_is_not_delivered_completely_stays_as_it_is(tmp_path: Path, num_bytes: int) -> None:
    directory = recorded(tmp_path)
    (spool,) = spools_in(directory)
    content = spool.read_bytes()
    lines = content.splitlines(keepends=True)
    delivered_bytes = len(content) - len(lines[-1]) if num_bytes < 0 else len(lines[0]) if num_bytes else 0
    AcknowledgedOffset(spool).save(delivered_bytes)
    assert trimmed(directory, Keep.UNDELIVERED) == 0
    assert spool.read_bytes() == content


@pytest.mark.usefixtures("file_locks")
def test_a_spool_that_is_being_written_is_not_trimmed(tmp_path: Path) -> None:
    run = offline(tmp_path, run_id="r")
    run.log(0, loss=1.0)
    assert run.directory is not None
    collector = FakeCollector()
    assert deliver(run.directory, collector).delivered
    assert trimmed(run.directory, Keep.UNDELIVERED) == 0
    run.log(1, loss=1.0)
    run.finish()
    assert trimmed(run.directory, Keep.UNDELIVERED) == 0, "its last lines are not delivered"
    assert deliver(run.directory, collector).delivered
    assert trimmed(run.directory, Keep.UNDELIVERED) == 1


@pytest.mark.usefixtures("file_locks")
def test_two_trims_at_once_do_not_delete_each_others_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = delivered(tmp_path)
    before, replace = History.read(directory), archive._archive
    at_once: list[int] = []

    def while_another_trims(path: Path, compressed: bool) -> int:
        at_once.append(trimmed(directory, Keep.UNDELIVERED))
        return replace(path, compressed)

    monkeypatch.setattr(archive, "_archive", while_another_trims)
    assert trimmed(directory, Keep.UNDELIVERED) == 1
    assert at_once == [0]
    assert History.read(directory) == before


def test_what_is_restored_while_it_is_trimmed_is_there_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = delivered(tmp_path)
    (spool,) = spools_in(directory)
    content, verify = spool.read_bytes(), archive._verify
    restoring, has_come = Thread(target=lambda: list(restore(directory))), Event()

    def lock(file: IO[bytes], **options: bool) -> None:
        if current_thread() is restoring:
            has_come.set()
        lock_file(file, **options)

    def while_another_restores(path: Path, archived: Path) -> None:
        verify(path, archived)
        restoring.start()
        assert eventually(lambda: has_come.is_set() or not restoring.is_alive())

    monkeypatch.setattr(archive, "lock_file", lock)
    monkeypatch.setattr(archive, "_verify", while_another_restores)
    assert trimmed(directory, Keep.COMPRESSED) == 1
    restoring.join(60)
    assert spool.read_bytes() == content
    assert [path.name for path in directory.glob("*.spool*")] == [spool.name]


@pytest.mark.parametrize("is_damaged", [True, False])
def test_a_damaged_spool_and_one_with_rejected_steps_keep_every_byte(tmp_path: Path, is_damaged: bool) -> None:
    directory = recorded(tmp_path)
    (spool,) = spools_in(directory)
    if is_damaged:
        spool.write_bytes(spool.read_bytes().replace(b'"loss":7.0', b'"loss":8.0'))
    content = spool.read_bytes()
    deliver(directory, FakeCollector())
    if not is_damaged:
        SetAside(directory).reject(content.splitlines(keepends=True)[-1])
    assert trimmed(directory, Keep.UNDELIVERED) == 1
    assert gzip.decompress(spool.with_suffix(".spool.gz").read_bytes()) == content


class Crash(BaseException):
    """Stands for a kill at this point."""


@pytest.mark.parametrize("number", range(8))
def test_a_crash_at_any_moment_loses_nothing_and_the_next_attempt_completes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    directory = delivered(tmp_path)
    known, calls = read(directory), 0

    def crashing(name: str) -> None:
        real = getattr(Path, name)

        def call(self: Path, *arguments: object, **options: object) -> object:
            nonlocal calls
            calls += 1
            if calls > number:
                raise Crash
            return real(self, *arguments, **options)

        patch.setattr(Path, name, call)

    with monkeypatch.context() as patch:
        crashing("unlink")
        crashing("rename")
        try:
            trimmed(directory, Keep.COMPRESSED)
        except Crash:
            assert number < 6
    assert read(directory) == known
    trimmed(directory, Keep.COMPRESSED)
    assert read(directory) == known
    assert spools_in(directory) == []


def test_a_full_disk_ends_the_trimming_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = delivered(tmp_path)
    known = read(directory)

    def fsync(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("lossguard.spool.archive.os.fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        trimmed(directory, Keep.COMPRESSED)
    assert read(directory) == known
    assert not list(directory.glob("*.partial"))


def test_a_file_system_that_does_not_rename_onto_files_or_at_all_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = delivered(tmp_path)
    (spool,) = spools_in(directory)
    spool.with_suffix(".control").write_bytes(b"of an attempt that was cut off")
    known, real, allowed = read(directory), Path.rename, [False]

    def rename(self: Path, target: Path) -> Path:
        if not allowed[0] or target.exists():
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OSError, match="busy"):
        trimmed(directory, Keep.COMPRESSED)
    assert read(directory) == known
    allowed[0] = True
    assert trimmed(directory, Keep.COMPRESSED) == 1
    assert read(directory) == known


def test_a_collector_that_lost_the_run_gets_compressed_spools_again(tmp_path: Path) -> None:
    directory = delivered(tmp_path)
    trimmed(directory, Keep.COMPRESSED)
    with offline(tmp_path, run_id="r") as run:
        run.log(51, loss=2.0)
    empty = FakeCollector()
    (spool,) = spools_in(directory)
    AcknowledgedOffset(spool).save(sum(map(len, spool.read_bytes().splitlines(keepends=True)[:2])))
    sender = Sender(directory, DirectClient(empty), LogOnce(quiet=True))
    sender.run()
    assert sender.delivered
    assert set(empty.losses(0)) == set(range(100))
    assert empty.losses(2) == {51: 2.0}


@pytest.mark.parametrize("keep", [Keep.COMPRESSED, Keep.UNDELIVERED])
def test_a_run_that_is_archived_while_it_is_read_is_read_to_its_end(tmp_path: Path, keep: Keep) -> None:
    def is_kept(record: dict[str, Any]) -> bool:
        return keep is Keep.COMPRESSED or not record.keys().isdisjoint(("run", "segment", "answer"))

    for _ in range(2):
        directory = delivered(tmp_path)
    records = [record for _, record in lossguard.read_spools(directory) if is_kept(record)]
    reading = lossguard.read_spools(directory)
    _, first = next(reading)  # by now the spools are listed
    assert trimmed(directory, keep) == 2
    assert [first, *(record for _, record in reading if is_kept(record))] == records


def test_a_run_that_is_archived_while_its_files_are_listed_keeps_its_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = delivered(tmp_path)
    before, glob = History.read(directory), Path.glob

    def archived_after_the_first_listing(folder: Path, pattern: str) -> list[Path]:
        monkeypatch.undo()
        found = list(glob(folder, pattern))
        assert trimmed(directory, Keep.UNDELIVERED) == 1
        return found

    monkeypatch.setattr(Path, "glob", archived_after_the_first_listing)
    assert History.read(directory) == before


def test_a_damaged_archive_stays_as_it_is_and_the_others_are_restored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = delivered(tmp_path)
    trimmed(directory, Keep.COMPRESSED)
    (whole,) = directory.glob("*.spool.gz")
    content = whole.read_bytes()
    for name, damaged in (("0-a", content[:-20]), ("0-b", content[:40] + b"\xff" * 40), ("0-c", b"no archive")):
        (directory / f"{name}.spool.gz").write_bytes(damaged)
    assert list(restore(directory)) == [whole.with_suffix("")]
    assert [text.split()[0] for text in caplog.messages] == [str(directory / f"0-{n}.spool.gz") for n in "abc"]
    assert len(list(directory.glob("0-*"))) == 3
