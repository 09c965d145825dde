"""Waiting reports are stored together, and each gets its own result."""

import asyncio
import threading
from collections.abc import Sequence

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from lossguard.spool.writer import Writer
from monitor.ingestion.queue import MAX_GROUP_REPORTS, MAX_GROUP_STEPS, Reported, ReportQueue
from monitor.ingestion.reports import ReportResult
from monitor.problems import Problem
from monitor.schemas import ReportIn

ONE = ReportIn(segment=0, steps=[0], times=[0.0])


class Store:
    """Takes reports into a table of names. The first one waits until `go` is set."""

    def __init__(self, engine: sa.Engine) -> None:
        self.taking, self.go = threading.Event(), threading.Event()
        self.transactions: list[Session] = []
        self.locked: list[Sequence[str]] = []
        self.is_away = False
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE taken (name TEXT)")

    def lock(self, _session: Session, run_ids: Sequence[str]) -> None:
        self.locked.append(run_ids)

    def take(
        self, session: Session, run_id: str, _report: Reported, _bytes: int | None, _writer: Writer | None
    ) -> ReportResult:
        self.taking.set()
        self.go.wait(60)
        if self.is_away:
            raise sa.exc.OperationalError("", None, Exception("away"))
        self.transactions.append(session)
        session.execute(sa.text("INSERT INTO taken VALUES (:name)"), {"name": run_id})
        if run_id == "bad":
            raise Problem(422, "malformed", "it is")
        return ReportResult(1, 0, [])


async def play(
    engine: sa.Engine, store: Store, *names: str, report: ReportIn = ONE
) -> list[ReportResult | BaseException]:
    """Send the first report, the others while it is being stored, and let it go."""
    queue = ReportQueue(engine, store.take, store.lock)
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
