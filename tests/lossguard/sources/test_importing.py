import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lossguard.run.settings import Settings
from lossguard.sources.importing import Imported, import_run
from lossguard.sources.names import NameMap
from lossguard.sources.rows import Row
from lossguard.sources.source_run import BadSource, SourceRun
from lossguard.spool import archive
from lossguard.spool.archive import Keep
from lossguard.spool.history import read_spools
from lossguard.spool.spool import RecordWriter, spools_in
from lossguard.spool.spool_reader import AcknowledgedOffset
from lossguard.vocabulary.errors import ConfigurationError
from lossguard.vocabulary.protocol import IMPORTED

Rows = list[Row]


def row(step: int, loss: float = 2.5) -> Row:
    return Row(step, 1e9 + step, {"train/loss": loss})


def stored(rows: Rows, **more: Any) -> SourceRun:
    return SourceRun(format="test", identity="1", name="a run", place="place", rows=lambda: iter(rows), **more)


def load(directory: Path, run: SourceRun) -> Imported:
    settings = Settings.read({}, mode="offline", directory=directory)
    return import_run(run, project="p", settings=settings, names=NameMap())


def recorded(done: Imported) -> Iterator[dict[str, Any]]:
    return (record for _, record in read_spools(done.folder))


def test_rows_names_configuration_tags_and_times_are_kept(tmp_path: Path) -> None:
    run = stored([row(0), row(1, math.nan)], config={"width": 8}, tags=["old"], started_at=9e8, ended_at=2e9, host="h")
    first, segment, *steps, last = recorded(load(tmp_path, run))
    assert first["run"]["name"] == "a run"
    assert first["run"]["config"] == {"width": 8, "tags": ["old"]}
    assert (first["run"]["started_at"], first["run"]["host"]) == (9e8, "h")
    assert first["run"]["capabilities"] == [IMPORTED]
    assert (segment["fork_step"], segment["time"]) == (0, 1e9)
    assert [(each["step"], each["time"], each["metrics"]) for each in steps] == [
        (0, 1e9, {"loss": 2.5}),
        (1, 1e9 + 1, {"loss": "NaN"}),
    ]
    assert (last["finish"], last["time"]) == ("finished", 2e9)


def test_importing_again_adds_nothing_and_then_only_what_has_come(tmp_path: Path) -> None:
    rows = [row(0), row(1)]
    assert load(tmp_path, stored(rows)).num_rows == 2
    again = load(tmp_path, stored(rows))
    assert (again.num_rows, again.num_known, len(spools_in(again.folder))) == (0, 2, 1)
    more = load(tmp_path, stored([*rows, row(2)]))
    assert (more.num_rows, more.num_known) == (1, 2)
    assert [each["step"] for each in recorded(more) if "metrics" in each] == [0, 1, 2]


def test_elsewhere_the_same_run_has_the_same_id_and_the_same_lines(tmp_path: Path) -> None:
    """So the collector drops what it has."""
    one, other = (load(tmp_path / name, stored([row(0), row(1)])) for name in "ab")
    assert one.run_id == other.run_id
    ((first,), (second,)) = map(spools_in, (one.folder, other.folder))
    assert (first.name, first.read_bytes()) == (second.name, second.read_bytes())


def test_an_import_that_was_cut_off_goes_on_where_it_was(tmp_path: Path) -> None:
    done = load(tmp_path, stored([row(step) for step in range(5)]))
    (spool,) = spools_in(done.folder)
    lines = spool.read_bytes().splitlines(keepends=True)
    spool.write_bytes(b"".join(lines[:4]) + lines[4][:9])  # two rows, and a torn one
    done = load(tmp_path, stored([row(step) for step in range(5)]))
    assert (done.num_known, done.num_rows) == (2, 3)
    assert [each["step"] for each in recorded(done) if "metrics" in each] == [0, 1, 2, 3, 4]
    assert sum("finish" in each for each in recorded(done)) == 1


def test_a_source_that_was_written_anew_after_a_resume_adds_what_differs(tmp_path: Path) -> None:
    load(tmp_path, stored([row(0), row(10), row(20), row(30)]))
    done = load(tmp_path, stored([row(0), row(10), row(20, 2.75)]))
    steps = [(each["step"], each["metrics"]["loss"]) for each in recorded(done) if "metrics" in each]
    assert steps == [(0, 2.5), (10, 2.5), (20, 2.5), (30, 2.5), (20, 2.75)]
    assert [each["fork_step"] for each in recorded(done) if "segment" in each] == [0, 20]


def test_rows_without_a_time_have_that_of_the_end(tmp_path: Path) -> None:
    done = load(tmp_path, stored([Row(0, None, {"loss": 1.0})], ended_at=1.5e9))
    assert [each["time"] for each in recorded(done) if "run" not in each] == [1.5e9, 1.5e9, 1.5e9]


def test_secrets_of_a_configuration_are_masked_and_no_rows_are_one_sentence(tmp_path: Path) -> None:
    done = load(tmp_path, stored([row(0)], config={"api_key": "sk-123456"}))
    assert "sk-123456" not in json.dumps(list(recorded(done)))
    with pytest.raises(BadSource, match="place has no row"):
        load(tmp_path / "other", stored([]))


def test_how_the_rows_were_made_is_said_before_the_first_of_them(tmp_path: Path) -> None:
    done = load(tmp_path, stored([row(10 * step) for step in range(50)]))
    kinds = [next(iter(each)) for each in recorded(done)]
    assert kinds[:4] == ["run", "segment", "event", "step"]
    (event,) = [each for each in recorded(done) if "event" in each]
    assert event["details"]["stride"] == 10


def test_delivered_rows_that_were_trimmed_away_are_not_imported_again(tmp_path: Path) -> None:
    done = load(tmp_path, stored([row(0), row(1)]))
    (spool,) = spools_in(done.folder)
    AcknowledgedOffset(spool).save(spool.stat().st_size)
    assert list(archive.trim(done.folder, Keep.UNDELIVERED))
    again = load(tmp_path, stored([row(0), row(1)]))
    assert (again.num_rows, again.num_known, spools_in(done.folder)) == (0, 2, [])
    assert load(tmp_path, stored([row(0), row(1), row(2)])).num_rows == 1


def test_the_rows_before_a_damaged_place_are_imported(tmp_path: Path) -> None:
    def rows() -> Iterator[Row]:
        yield from (row(0), row(1))
        raise BadSource("the file is damaged")

    done = load(tmp_path, SourceRun(format="test", identity="1", name="a run", place="place", rows=rows))
    assert (done.num_rows, done.problem) == (2, "the file is damaged")
    assert [each["step"] for each in recorded(done) if "metrics" in each] == [0, 1]


def test_rows_that_a_disk_did_not_take_are_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    close = RecordWriter.close
    monkeypatch.setattr(RecordWriter, "close", lambda writer, timeout: close(writer, timeout) and False)
    with pytest.raises(ConfigurationError, match="cannot be written"):
        load(Path("/proc/nowhere"), stored([row(0)]))
    with pytest.raises(ConfigurationError, match=r"place: not all rows could be written to .*; import it again"):
        load(tmp_path, stored([row(0)]))
