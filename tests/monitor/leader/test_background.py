"""Long work of the leader: in a thread, one at a time; files of deleted runs are removed, last rows are packed."""

import logging
import math
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from db import commands, frames, queries
from db.lineage import Line
from db.models import BlockValues, Step
from db.steps import backlog, writer
from db.steps.archived.places import Place
from db.store.engine import reading, writing
from db.store.leader import Lease
from lossguard.vocabulary.states import RunState
from monitor.leader import background
from monitor.leader.background import Background, FileRemoval, LastRows, MayGoOn, next_start
from tests.db.archive.stored import add_ended_run, archive, parquet_files
from tests.db.seed import NOW, add_run, add_segment, add_steps
from tests.monitor.client import Trainer, collector
from tests.waiting import wait_for

LEASE = Lease(role="leader", holder="a", term=1, since=0.0, now=0.0)


def test_work_that_is_going_on_is_not_begun_again() -> None:
    begun: list[Lease] = []
    may_end = threading.Event()

    def work(lease: Lease, may_go_on: MayGoOn) -> None:
        begun.append(lease)
        may_end.wait(60.0)

    background = Background("test", work, every_seconds=0.0)
    background.start_if_due(LEASE, always)
    wait_for(lambda: begun, seconds=60, what="the work begins")
    background.start_if_due(LEASE, always)
    assert begun == [LEASE]
    may_end.set()

    def has_begun_again() -> bool:
        background.start_if_due(LEASE, always)
        return len(begun) > 1

    wait_for(has_begun_again, seconds=60, what="the work begins again")


def test_work_that_was_done_is_not_due_at_once() -> None:
    done: list[Lease] = []
    background = Background("test", lambda lease, may_go_on: done.append(lease))
    background.start_if_due(LEASE, always)
    wait_for(lambda: done, seconds=60, what="the work is done")
    background.start_if_due(LEASE, always)
    assert done == [LEASE]


@pytest.mark.parametrize(
    ("error", "messages"), [(RuntimeError, ["test failed; it is tried again in 0 s"]), (sa.exc.TimeoutError, [])]
)
def test_work_that_fails_is_logged_unless_the_database_is_away_and_begun_again(
    error: type[Exception], messages: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    begun: list[Lease] = []

    def fail(lease: Lease, may_go_on: MayGoOn) -> None:
        begun.append(lease)
        raise error("no")

    background = Background("test", fail, every_seconds=0.0)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            background.start_if_due(LEASE, always)
            background.join()
    assert len(begun) == 2
    assert [record.message for record in caplog.records] == messages * 2


def test_files_of_deleted_runs_go_and_a_place_that_is_away_is_said_once(
    sqlite_engine: sa.Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with writing(sqlite_engine) as session:
        add_ended_run(session)
    archive(sqlite_engine, Place(str(tmp_path / "place")))
    with writing(sqlite_engine) as session:
        run = commands.lock_run(session, run_id="r1")
        assert run is not None
        commands.delete_run(session, run=run)
    shutil.move(tmp_path / "place", tmp_path / "away")
    file_removal = FileRemoval(sqlite_engine)
    with caplog.at_level(logging.WARNING):
        file_removal.remove(LEASE, lambda: True)
        file_removal.remove(LEASE, lambda: True)
    assert ["is it mounted" in record.message for record in caplog.records] == [True]
    shutil.move(tmp_path / "away", tmp_path / "place")
    file_removal.remove(LEASE, lambda: False)
    assert parquet_files(tmp_path)
    file_removal.remove(LEASE, lambda: True)
    assert not parquet_files(tmp_path)


HOUR = 3600.0
LATER = Lease(role="leader", holder="a", term=1, since=0.0, now=NOW + HOUR)
"""Of a leader an hour after the last report."""


def pack(engine: sa.Engine, lease: Lease = LATER) -> LastRows:
    last = LastRows(engine, pause_seconds=0.0)
    last.pack(lease, always)
    return last


def always() -> bool:
    return True


def num_rows(engine: sa.Engine) -> int:
    with reading(engine) as session:
        return session.scalar(sa.select(sa.func.count()).select_from(Step)) or 0


def add_running(engine: sa.Engine, *run_ids: str, num_steps: int = 40) -> None:
    with writing(engine) as session:
        for run_id in run_ids:
            run = add_run(session, run_id)
            add_steps(session, run, add_segment(session, run, "a"), range(num_steps))


# A run that was killed and comes back


def values(steps: Sequence[int], seed: int = 0) -> dict[str, list[float | None]]:
    """Usual ones and strange ones."""
    noise = np.random.default_rng([seed, *steps[:1]]).normal(size=len(steps))
    loss = [math.nan if step % 97 == 5 else 3.0 + x / 7 for step, x in zip(steps, noise, strict=True)]
    return {
        "loss": loss,
        "tokens": [512.0 * step for step in steps],
        "grad_norm": [math.inf if step % 89 == 3 else 1.0 + x * x for step, x in zip(steps, noise, strict=True)],
        "eval/odd": [None if step % 2 else 5e-324 * step for step in steps],
    }


def reports_of_a_killed_run(trainer: Trainer) -> Iterator[Any]:
    """Two segments, both with a tail in rows, and a hole that is filled later."""
    for key, first, last in (("a", 0, 700), ("b", 650, 900)):
        number = trainer.open(key, fork_step=first)
        for start in range(first, last, 50):
            steps = [step for step in range(start, start + 50) if not 820 <= step < 830]
            yield answer_of(trainer.report(number, steps, values(steps, seed=number)))


def reports_after_it_came_back(trainer: Trainer) -> Iterator[Any]:
    """What it reported already, what it had not delivered, what follows; then a restart from a checkpoint."""
    yield answer_of(trainer.report(1, range(860, 900), values(range(860, 900), seed=1)))
    yield answer_of(trainer.report(1, range(820, 830), values(range(820, 830), seed=1)))
    for start in range(900, 1600, 70):
        yield answer_of(trainer.report(1, range(start, start + 70), values(range(start, start + 70), seed=1)))
    number = trainer.open("c", fork_step=850)
    for start in range(850, 1450, 60):
        yield answer_of(trainer.report(number, range(start, start + 60), values(range(start, start + 60), seed=2)))


def answer_of(answer: dict[str, Any]) -> list[Any]:
    """Without keys and times."""
    orders = [(order["kind"], order["reason"], order["segment"], order["step"]) for order in answer["orders"]]
    return [answer["accepted"], answer["duplicates"], orders]


def everything_of(engine: sa.Engine, trainer: Trainer) -> list[Any]:
    """All frames to the bit, curves at several resolutions, and what was detected."""
    with reading(engine) as session:
        run = queries.run_named(session, run_id=trainer.run_id)
        assert run is not None
        frame = frames.steps(session, run=run, line=Line.ALL)
        series = [
            repr(queries.series(session, run=run, step_ranges=steps, metric=metric, points=points))
            for steps in (queries.step_ranges(session, run=run, line=line) for line in (Line.LIVE, 0, 1))
            for metric in ("loss", "tokens", "eval/odd")
            for points in (3, 40, 2000)
        ]
    bits = [
        column.to_numpy().tobytes() if column.dtype.kind == "f" else column.astype(str).tolist()
        for _, column in frame.items()
    ]
    incidents = [
        {name: value for name, value in incident.items() if name not in ("id", "opened_at", "changed_at")}
        for incident in trainer.get("/incidents")
    ]
    return [list(frame.columns), frame.index.tolist(), bits, series, incidents]


@pytest.mark.slow
def test_a_killed_run_that_was_packed_and_reports_again_ends_as_one_that_was_not(engine: sa.Engine) -> None:
    times = [NOW]
    with collector(engine, clock=lambda: times[0]) as http:
        packed = Trainer(http, "packed")
        answers = [list(reports_of_a_killed_run(packed))]
        times[0] += HOUR
        other = Trainer(http, "other")
        answers.append(list(reports_of_a_killed_run(other)))
        rows_of_both = num_rows(engine)
        pack(engine, Lease(role="leader", holder="a", term=1, since=0.0, now=times[0]))
        assert num_rows(engine) == rows_of_both / 2 == 390
        assert everything_of(engine, packed) == everything_of(engine, other)
        for number, trainer in enumerate((packed, other)):
            answers[number] += reports_after_it_came_back(trainer)
        assert everything_of(engine, packed) == everything_of(engine, other)
        assert answers[0] == answers[1]


# Which runs are packed


def test_a_run_that_reports_or_that_nobody_could_report_to_keeps_its_rows(engine: sa.Engine) -> None:
    add_running(engine, "r1")
    just_now = Lease(role="leader", holder="a", term=1, since=0.0, now=NOW + 60.0)
    after_an_outage = Lease(role="leader", holder="a", term=1, since=NOW + HOUR - 60.0, now=NOW + HOUR)
    for lease in (just_now, after_an_outage):
        pack(engine, lease)
        assert num_rows(engine) == 40
    pack(engine)
    assert num_rows(engine) == 0


def test_a_run_that_reports_between_the_look_and_its_turn_keeps_its_rows(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_running(engine, "r1")
    look = backlog.look

    def look_and_report(*arguments: Any, **options: Any) -> list[backlog.PackCandidate]:
        found = look(*arguments, **options)
        with writing(engine) as session:
            commands.lock_runs(session, run_ids=["r1"], last_report_at=LATER.now)
        return found

    monkeypatch.setattr(backlog, "look", look_and_report)
    pack(engine)
    assert num_rows(engine) == 40


def test_an_ended_run_with_many_segments_is_packed_little_by_little(engine: sa.Engine) -> None:
    with writing(engine) as session:
        run = add_run(session)
        for number in range(2 * backlog.SEGMENTS_AT_ONCE + 1):
            add_steps(session, run, add_segment(session, run, str(number)), range(20))
        commands.finish_run(session, run=run, state=RunState.FINISHED, at=NOW, now=NOW)
    left = [num_rows(engine)]
    last = LastRows(engine, pause_seconds=0.0)
    for _ in range(2):
        last.pack(LATER, always)
        left.append(num_rows(engine))
    assert left == [20 * (backlog.SEGMENTS_AT_ONCE + 1), 20, 0]


# How much at a time


def test_all_runs_have_their_turn_a_few_at_a_time(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "RUNS_AT_ONCE", 3)
    monkeypatch.setattr(background, "PACKED_AT_ONCE", 2)
    add_running(engine, *"abcde")
    last = LastRows(engine, pause_seconds=0.0)
    left = []
    for _ in range(3):
        last.pack(LATER, always)
        left.append(num_rows(engine) // 40)
    assert left == [3, 1, 0]


def test_nothing_more_is_packed_once_the_lease_is_lost(sqlite_engine: sa.Engine) -> None:
    add_running(sqlite_engine, *"abc")
    last, still_ours = LastRows(sqlite_engine, pause_seconds=0.0), iter([True, False])
    last.pack(LATER, lambda: next(still_ours))
    assert num_rows(sqlite_engine) == 2 * 40
    last.pack(LATER, always)
    assert num_rows(sqlite_engine) == 0


def test_a_look_begins_behind_the_one_before_and_again_at_the_first_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "RUNS_AT_ONCE", 3)
    monkeypatch.setattr(background, "PACKED_AT_ONCE", 2)
    runs = [backlog.PackCandidate(pk, str(pk), True) for pk in (4, 7, 9)]
    assert next_start(runs, runs[:1]) == 9
    assert next_start(runs, runs[:2]) == 7
    assert next_start(runs[:2], []) == 0
    assert next_start([], []) == 0


def test_a_run_that_cannot_be_packed_is_said_once_and_does_not_stop_the_others(
    sqlite_engine: sa.Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with writing(sqlite_engine) as session:
        run = add_run(session, "damaged")
        segment = add_segment(session, run, "a")
        add_steps(session, run, segment, range(0, 2 * writer.PACK_AT, 2))
        add_steps(session, run, segment, range(1, 41, 2))
        session.execute(sa.update(BlockValues).values(values=b"\x01cut"))
    add_running(sqlite_engine, "whole")
    last = LastRows(sqlite_engine, pause_seconds=0.0)
    for _ in range(2):
        last.pack(LATER, always)
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "run 'damaged', segment 0, steps 0 to 1022, is damaged" in warnings[0]
    assert num_rows(sqlite_engine) == 20


def test_a_run_that_the_database_refuses_to_pack_has_the_others_packed_the_next_time(sqlite_engine: sa.Engine) -> None:
    add_running(sqlite_engine, "refused", "whole")
    refusal = "BEFORE INSERT ON step_blocks WHEN NEW.run_pk = 1 BEGIN SELECT RAISE(ABORT, 'no'); END"
    with writing(sqlite_engine) as session:
        session.execute(sa.text(f"CREATE TRIGGER refusal {refusal}"))
    last = LastRows(sqlite_engine, pause_seconds=0.0)
    with pytest.raises(sa.exc.IntegrityError):
        last.pack(LATER, always)
    last.pack(LATER, always)
    assert num_rows(sqlite_engine) == 40
