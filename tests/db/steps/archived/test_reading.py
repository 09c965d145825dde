"""Charts and columns of archived steps: what is read of the files, and what is said when they cannot be read."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from db import commands, queries
from db.archive import inventory
from db.lineage import StepRange
from db.runs import overview
from db.steps import reader
from db.steps.archived.places import Place
from db.steps.archived.reading import CHECK_SECONDS, UnreadableArchive
from db.steps.series import Series, many_series
from db.steps.step_block import MetricColumn, RunRange
from db.store.engine import reading, writing
from tests.db.archive.stored import archive, assert_same, forget_contents, parquet_files, store_run, unarchive, whole_of
from tests.db.seed import add_run, add_segment, add_steps, end_run, stored_run

NUM_STEPS = 20_000
METRICS = [f"m{number}" for number in range(6)]


@pytest.fixture
def folder(sqlite_engine: sa.Engine, tmp_path: Path) -> Path:
    """The place of an archived run whose values compress badly."""
    random = np.random.default_rng(0)
    with writing(sqlite_engine) as session:
        run = add_run(session)
        values = {name: random.normal(size=NUM_STEPS).tolist() for name in METRICS}
        add_steps(session, run, add_segment(session, run, "a"), range(NUM_STEPS), **values)
        end_run(session, run)
    archive(sqlite_engine, Place(str(tmp_path / "place")))
    return tmp_path / "place"


def chart(engine: sa.Engine, first: int | None = None, last: int | None = None) -> dict[str, Series]:
    with reading(engine) as session:
        run = stored_run(session)
        line = queries.live(session, run=run)
        return many_series(session, run=run, step_ranges=line, metrics=["m3"], first=first, last=last, points=60)


def column(engine: sa.Engine, first: int, last: int) -> MetricColumn:
    with reading(engine) as session:
        run = stored_run(session)
        part = RunRange(run.pk, StepRange(0, first, last))
        (block,) = reader.read_ranges(session, ranges=[part], metrics=["m3"])
        return block.metrics["m3"]


def test_one_metric_of_a_window_reads_its_own_bytes_alone(
    sqlite_engine: sa.Engine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    column(sqlite_engine, 0, 10)  # reads the footer
    forget_contents()
    num_bytes: list[int] = []
    read = Place.read

    def counted(self: Place, name: str, start: int, end: int) -> bytes:
        num_bytes.append(end - start)
        return read(self, name, start, end)

    monkeypatch.setattr(Place, "read", counted)
    assert len(column(sqlite_engine, 5000, 6000).values) == 1000
    size = parquet_files(folder)[0].stat().st_size
    assert 0 < sum(num_bytes) < size / len(METRICS) + 60_000, "the column of the metric, and those of the steps"


def test_a_chart_of_the_whole_run_and_its_newest_step_need_no_file(sqlite_engine: sa.Engine, folder: Path) -> None:
    whole = chart(sqlite_engine)
    shutil.rmtree(folder)
    assert chart(sqlite_engine) == whole
    with reading(sqlite_engine) as session:
        run = stored_run(session)
        newest = queries.newest_step(session, run=run)
        assert newest is not None
        assert (newest.step, set(newest.metrics)) == (NUM_STEPS - 1, set(METRICS))
    with pytest.raises(UnreadableArchive, match=r"^the archived steps 0 to 19,967 of the run 'r1' cannot be read: .*$"):
        chart(sqlite_engine, 5000, 5100)


def test_a_damaged_page_is_one_sentence_and_the_other_pages_are_read(sqlite_engine: sa.Engine, folder: Path) -> None:
    before = column(sqlite_engine, 0, 50).values
    (file,) = parquet_files(folder)
    content = bytearray(file.read_bytes())
    content[len(content) - 20_000] ^= 1  # in a column behind m3
    file.write_bytes(content)
    forget_contents()
    assert np.array_equal(column(sqlite_engine, 0, 50).values, before)
    middle = len(content) // 2
    content[middle - 60_000 : middle + 120_000] = bytes(180_000)
    file.write_bytes(content)
    forget_contents()
    with pytest.raises(UnreadableArchive) as failed:
        column(sqlite_engine, 0, 50)
    assert f"{file} is damaged" in str(failed.value)
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize("damage", ["missing", "cut", "written anew"])
def test_a_file_that_is_damaged_or_goes_while_it_is_in_memory_is_noticed_in_the_next_period(
    sqlite_engine: sa.Engine, folder: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    clock = FakeClock(time.monotonic())
    monkeypatch.setattr("db.steps.archived.reading.time", clock)
    column(sqlite_engine, 0, 50)
    (file,) = parquet_files(folder)
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(content[:-1] if damage == "cut" else bytes(len(content)))
    column(sqlite_engine, 0, 50)
    clock.now += CHECK_SECONDS
    with pytest.raises(
        UnreadableArchive, match="there is no file" if damage == "missing" else "is damaged: it "
    ) as bad:
        column(sqlite_engine, 0, 50)
    assert "\n" not in str(bad.value)
    file.write_bytes(content)
    clock.now += CHECK_SECONDS
    assert len(column(sqlite_engine, 0, 50).values) == 50


class FakeClock:
    """`time`, as far as the reader uses it."""

    def __init__(self, now: float) -> None:
        self.now = now

    def monotonic(self) -> float:
        return self.now


def test_a_file_is_looked_at_once_in_a_period_however_often_it_is_read(
    sqlite_engine: sa.Engine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.steps.archived.reading.time", FakeClock(time.monotonic()))
    requests: list[str] = []
    for name in ("look_at", "read"):
        monkeypatch.setattr(Place, name, counted(getattr(Place, name), name, requests))
    column(sqlite_engine, 0, 50)
    first = len(requests)
    assert requests.count("look_at") == 1
    for start in range(0, 5000, 100):
        column(sqlite_engine, start, start + 100)
    assert len(requests) == first


def counted(method: Callable[..., Any], name: str, requests: list[str]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        requests.append(name)
        return method(*arguments)

    return call


def test_a_read_that_began_before_its_steps_were_brought_back_gets_the_same_values(
    engine: sa.Engine, tmp_path: Path
) -> None:
    before = store_run(engine)
    archive(engine, Place(str(tmp_path / "place")))
    with reading(engine) as session:
        queries.run_named(session, run_id="r1")  # the moment that the session sees
        unarchive(engine)
        assert parquet_files(tmp_path) == []
        assert_same(before, whole_of(session))


def test_a_read_of_a_run_that_is_deleted_meanwhile_says_so(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    store_run(sqlite_engine)
    archive(sqlite_engine, Place(str(tmp_path / "place")))
    with reading(sqlite_engine) as session:
        queries.run_named(session, run_id="r1")
        with writing(sqlite_engine) as other:
            pks = [pk for pk, _ in commands.lock_runs(other, run_ids=["r1"]).values()]
            commands.delete_runs(other, run_pks=pks)
        inventory.remove_left_over(sqlite_engine)
        with pytest.raises(UnreadableArchive, match=r"of the run 'r1' cannot be read: the run was deleted meanwhile$"):
            whole_of(session)


def test_a_list_of_runs_needs_no_file_however_short_the_run_is(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    store_run(sqlite_engine)
    with reading(sqlite_engine) as session:
        (before,) = overview.summaries(session, runs=queries.runs(session), metrics=["loss", "eval/a.b"]).values()
    archive(sqlite_engine, Place(str(tmp_path / "place")))
    shutil.rmtree(tmp_path / "place")
    with reading(sqlite_engine) as session:
        runs = queries.runs(session)
        (after,) = overview.summaries(session, runs=runs, metrics=["loss", "eval/a.b"]).values()
        ((newest, _),) = overview.newest(session, runs=runs, metrics=["loss"], num_steps=100).values()
    for name in ("loss", "eval/a.b"):
        one, other = before.metrics[name], after.metrics[name]
        assert (one.last, one.min, one.max) == (other.last, other.min, other.max)
        assert max(one.sparkline) == max(other.sparkline)
    assert newest.metrics["loss"].last == 2.0
