"""Waiting reports are stored together, every run in turn, and each gets its own result."""

import asyncio
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from db import queries
from db.store.engine import reading, writing
from monitor.ingestion.queue import (
    MAX_GROUP_REPORTS,
    MAX_GROUP_STEPS,
    RUN_SHARE,
    Intake,
    PendingReport,
    ReportQueue,
    WaitingReports,
)
from monitor.ingestion.reports import ReportResult
from monitor.ingestion.run_updates import RunLimits, RunUpdate
from monitor.problems import Problem
from monitor.schemas import ReportIn
from tests.monitor.client import NOW, TestClient, Trainer

ONE = ReportIn(segment=0, steps=[0], times=[0.0])


class Store(Intake):
    """Takes reports into a table of names. The first one waits until `go` is set."""

    def __init__(self, engine: sa.Engine) -> None:
        self.taking, self.go = threading.Event(), threading.Event()
        self.transactions: list[Session] = []
        self.locked: list[list[str]] = []
        self.is_away = False
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE taken (name TEXT)")

    def lock(self, session: Session, group: Sequence[PendingReport]) -> None:
        self.locked.append([pending.run_id for pending in group])

    def take(self, session: Session, pending: PendingReport) -> ReportResult:
        self.taking.set()
        self.go.wait(60)
        if self.is_away:
            raise sa.exc.OperationalError("", None, Exception("away"))
        self.transactions.append(session)
        session.execute(sa.text("INSERT INTO taken VALUES (:name)"), {"name": pending.run_id})
        if pending.run_id == "bad":
            raise Problem(422, "malformed", "it is")
        return ReportResult(1, 0, [])


async def play(
    engine: sa.Engine, store: Store, *names: str, report: ReportIn = ONE
) -> list[ReportResult | BaseException]:
    """Send the first report, the others while it is being stored, and let it go."""
    queue = ReportQueue(engine, store)
    first = asyncio.create_task(queue.store("first", report))
    assert await asyncio.to_thread(store.taking.wait, 60)
    others = [asyncio.create_task(queue.store(name, report)) for name in names]
    await asyncio.sleep(0)  # each of them runs until it waits for its result
    store.go.set()
    return await asyncio.gather(first, *others, return_exceptions=True)


def stored_names(engine: sa.Engine) -> list[str]:
    with engine.connect() as connection:
        return sorted(connection.exec_driver_sql("SELECT name FROM taken").scalars())


def sizes(store: Store) -> list[int]:
    """Reports in each transaction."""
    return [store.transactions.count(one) for one in dict.fromkeys(store.transactions)]


def test_reports_that_arrive_while_one_is_stored_share_the_next_transaction(sqlite_engine: sa.Engine) -> None:
    store = Store(sqlite_engine)
    names = [f"r{number:02}" for number in range(10)]
    answers = asyncio.run(play(sqlite_engine, store, *names))
    assert all(isinstance(answer, ReportResult) for answer in answers)
    assert sizes(store) == [1, 10]
    assert store.locked == [names]
    assert stored_names(sqlite_engine) == ["first", *names]


@pytest.mark.parametrize(
    ("num_steps", "wanted"),
    [(1, [1, MAX_GROUP_REPORTS, 6]), (MAX_GROUP_STEPS // 2, [1] + [2] * ((MAX_GROUP_REPORTS + 6) // 2))],
)
def test_a_group_has_a_limit(sqlite_engine: sa.Engine, num_steps: int, wanted: list[int]) -> None:
    store = Store(sqlite_engine)
    report = ReportIn(segment=0, steps=list(range(num_steps)), times=[0.0] * num_steps)
    asyncio.run(play(sqlite_engine, store, *map(str, range(MAX_GROUP_REPORTS + 6)), report=report))
    assert sizes(store) == wanted


def test_a_malformed_report_does_not_harm_the_others(sqlite_engine: sa.Engine) -> None:
    store = Store(sqlite_engine)
    answers = asyncio.run(play(sqlite_engine, store, "a", "bad", "c"))
    assert [isinstance(answer, Problem) for answer in answers] == [False, False, True, False]
    assert stored_names(sqlite_engine) == ["a", "c", "first"]


def test_when_the_database_is_away_all_fail_and_later_ones_are_stored(sqlite_engine: sa.Engine) -> None:
    store = Store(sqlite_engine)
    store.is_away = True
    answers = asyncio.run(play(sqlite_engine, store, "a", "b"))
    assert all(isinstance(answer, sa.exc.OperationalError) for answer in answers)
    store.is_away = False
    (answer,) = asyncio.run(play(sqlite_engine, store))
    assert isinstance(answer, ReportResult)
    assert stored_names(sqlite_engine) == ["first"]


def test_a_run_whose_rows_the_collector_completes_beside_the_reports_of_others_has_not_reported(
    http_on_both: TestClient, engine: sa.Engine
) -> None:
    for name in ("alive", "both", "dead"):
        Trainer(http_on_both, name)
    completing = [replace(pending(name), report=RunUpdate()) for name in ("both", "dead")]
    intake = Intake(lambda: NOW + 60.0, RunLimits(max_metrics=9, max_segments=9), lease_seconds=30.0)

    def columns() -> dict[str, tuple[float, int]]:
        with reading(engine) as session:
            return {run.id: (run.last_report_at, run.revision) for run in queries.runs(session)}

    before = columns()
    with writing(engine) as session:
        intake.lock(session, [pending("alive"), completing[0], pending("both"), completing[1]])
    reported_at = {"alive": NOW + 60.0, "both": NOW + 60.0, "dead": NOW}
    assert columns() == {name: (reported_at[name], revision + 1) for name, (_, revision) in before.items()}
    with writing(engine) as session:
        intake.lock(session, completing)
    assert columns() == {
        name: (reported_at[name], before[name][1] + 1 + (name != "alive")) for name in ("alive", "both", "dead")
    }


LOOP = asyncio.new_event_loop()
SHARE = round(RUN_SHARE * MAX_GROUP_REPORTS)


def pending(run_id: str, num_steps: int = 1, *, first: int = 0, num_metrics: int = 1) -> PendingReport:
    steps = list(range(first, first + num_steps))
    metrics = {f"m{number}": [0.0] * num_steps for number in range(num_metrics)}
    report = ReportIn.model_construct(segment=0, steps=steps, times=[0.0] * num_steps, metrics=metrics)
    return PendingReport(run_id, report, None, None, asyncio.Future(loop=LOOP))


def waiting(*reports: PendingReport) -> WaitingReports:
    found = WaitingReports()
    for one in reports:
        found.add(one)
    return found


def runs(group: list[PendingReport]) -> Counter[str]:
    return Counter(one.run_id for one in group)


def test_a_run_with_many_reports_gives_its_share_while_others_wait() -> None:
    reports = waiting(*(pending("noisy", first=step) for step in range(300)), pending("quiet"))
    assert runs(reports.next_group()) == {"noisy": SHARE, "quiet": 1}
    assert runs(reports.next_group()) == {"noisy": MAX_GROUP_REPORTS}, "alone, it has all of it"


def test_the_share_of_a_run_is_one_of_steps_too_and_steps_with_many_metrics_count_more() -> None:
    for report in ({"num_steps": 1_000}, {"num_steps": 100, "num_metrics": 80}):
        reports = waiting(*(pending("noisy", **report) for _ in range(10)), pending("quiet"), pending("quiet"))
        assert runs(reports.next_group()) == {"noisy": 2, "quiet": 2}


def test_a_run_that_was_left_out_is_the_first_of_the_next_group() -> None:
    full = [pending(f"r{number:03}") for number in range(MAX_GROUP_REPORTS)]
    reports = waiting(*full, pending("late"))
    for one in full:
        reports.add(pending(one.run_id, first=1))
    assert "late" not in runs(reports.next_group())
    assert "late" in runs(reports.next_group())


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, MAX_GROUP_STEPS)), max_size=60))
def test_every_report_is_taken_once_and_those_of_a_run_in_their_order(sent: list[tuple[str, int]]) -> None:
    reports = waiting(*(pending(run, steps, first=number) for number, (run, steps) in enumerate(sent)))
    taken: dict[str, list[int]] = {}
    while group := reports.next_group():
        for one in group:
            assert isinstance(one.report, ReportIn)
            taken.setdefault(one.run_id, []).append(one.report.steps[0])
    assert taken == {
        run: [number for number, (sender, _) in enumerate(sent) if sender == run] for run, _ in dict(sent).items()
    }
