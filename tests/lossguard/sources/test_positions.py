from pathlib import Path

import pytest

from lossguard.sources import positions
from lossguard.sources.positions import Saved
from lossguard.spool import archive, spool_reader
from lossguard.spool.archive import Keep
from lossguard.spool.spool import spools_in
from lossguard.spool.spool_reader import AcknowledgedOffset
from tests.lossguard.recorded import offline


def record(folder: Path, steps: range, run_id: str = "r") -> Path:
    with offline(folder, run_id=run_id) as run:
        for step in steps:
            run.log_row(step, {"loss": 1.0}, 1e9 + step, [step, "x"])
    assert run.directory is not None
    return run.directory


def test_the_newest_row_says_where_reading_goes_on(tmp_path: Path) -> None:
    directory = record(tmp_path, range(5))
    record(tmp_path, range(5, 7))
    found = positions.newest(directory)
    assert found is not None
    assert (found.step, found.metrics, found.position) == (6, {"loss": 1.0}, [6, "x"])


def test_a_line_that_a_kill_has_torn_does_not_count(tmp_path: Path) -> None:
    directory = record(tmp_path, range(5))
    (spool,) = spools_in(directory)
    data = spool.read_bytes().splitlines(keepends=True)
    spool.write_bytes(b"".join(data[:-2]) + data[-2][:-5])
    found = positions.newest(directory)
    assert found is not None
    assert found.step == 3


def test_it_is_found_behind_many_lines_without_a_position(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_reader, "WINDOW", 512)
    with offline(tmp_path, run_id="r") as run:
        run.log_row(3, {"loss": 1.0}, None, "here")
        for _ in range(50):
            run.declare("learning_rate", lr=0.1)
    assert run.directory is not None
    found = positions.newest(run.directory)
    assert found is not None
    assert (found.step, found.position) == (3, "here")


@pytest.mark.parametrize("keep", [Keep.COMPRESSED, Keep.UNDELIVERED])
def test_trimmed_spools_keep_it_or_the_file_beside_them_has_it(tmp_path: Path, keep: Keep) -> None:
    directory = record(tmp_path, range(5))
    saved = Saved(4, [4, "x"], {"loss": "train/loss"}, "csv", "place")
    positions.save(directory, saved)
    (spool,) = spools_in(directory)
    AcknowledgedOffset(spool).save(spool.stat().st_size)
    assert list(archive.trim(directory, keep))
    found = positions.newest(directory)
    assert found is not None
    assert (found.step, found.position) == (4, [4, "x"])
    assert positions.saved(directory) == saved


def test_a_run_without_such_rows_has_none(tmp_path: Path) -> None:
    with offline(tmp_path) as run:
        run.log(0, loss=1.0)
    assert run.directory is not None
    assert positions.newest(run.directory) is None
    assert positions.saved(run.directory) is None
    assert positions.is_finished(run.directory)


def test_live_rows_leave_out_what_a_rewind_left(tmp_path: Path) -> None:
    with offline(tmp_path) as run:
        for step, loss in ((0, 1.0), (1, 1.1), (2, 1.2), (1, 2.1)):
            run.log_row(step, {"loss": loss})
    assert run.directory is not None
    assert positions.live_rows(run.directory) == [(0, {"loss": 1.0}), (1, {"loss": 2.1})]
