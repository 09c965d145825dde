"""Reports that wait are stored together, and each is answered for itself."""

import asyncio
import threading
from collections.abc import Sequence

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from monitor.ingestion.queue import MOST_REPORTS, MOST_STEPS, ReportQueue
from monitor.ingestion.reports import Receipt
from monitor.problems import Problem
from monitor.schemas import ReportIn

ONE = ReportIn(segment=0, steps=[0], times=[0.0])


class Store:
    """Takes reports into a table of names; the first one waits until it is let go."""

    def __init__(self, engine: sa.Engine) -> None:
        self.go = threading.Event()
        self.transactions: list[Session] = []
        self.locked: list[Sequence[str]] = []
        self.away = False
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE taken (name TEXT)")

    def lock(self, _session: Session, run_ids: Sequence[str]) -> None:
        self.locked.append(run_ids)

    def take(self, session: Session, run_id: str, _report: ReportIn, _left: int | None) -> Receipt:
        self.go.wait(10)
        if self.away:
            raise sa.exc.OperationalError("", None, Exception("away"))
        self.transactions.append(session)
        session.execute(sa.text("INSERT INTO taken VALUES (:name)"), {"name": run_id})
        if run_id == "bad":
            raise Problem(422, "malformed", "it is")
        return Receipt(1, 0, [])


async def play(engine: sa.Engine, store: Store, *names: str, report: ReportIn = ONE) -> list[Receipt | BaseException]:
    """Send the first report, the others while it is being stored, and let it go."""
    intake = ReportQueue(engine, store.take, store.lock)
    first = asyncio.create_task(intake.take("first", report))
    await asyncio.sleep(0.05)
    others = [asyncio.create_task(intake.take(name, report)) for name in names]
    await asyncio.sleep(0.05)
    store.go.set()
    return await asyncio.gather(first, *others, return_exceptions=True)


def kept(engine: sa.Engine) -> list[str]:
    with engine.connect() as connection:
        return sorted(connection.exec_driver_sql("SELECT name FROM taken").scalars())


def sizes(store: Store) -> list[int]:
    """Reports in each transaction."""
    return [store.transactions.count(one) for one in dict.fromkeys(store.transactions)]


def test_what_comes_while_a_report_is_stored_shares_the_next_transaction(sqlite_engine: sa.Engine) -> None:
    store = Store(sqlite_engine)
    names = [f"r{number:02}" for number in range(10)]
    answers = asyncio.run(play(sqlite_engine, store, *names))
    assert all(isinstance(answer, Receipt) for answer in answers)
    assert sizes(store) == [1, 10]
    assert store.locked == [names]
    assert kept(sqlite_engine) == ["first", *names]


@pytest.mark.parametrize(
    ("num_steps", "wanted"), [(1, [1, MOST_REPORTS, 6]), (MOST_STEPS // 2, [1] + [2] * ((MOST_REPORTS + 6) // 2))]
)
def test_a_group_has_an_end(sqlite_engine: sa.Engine, num_steps: int, wanted: list[int]) -> None:
    store = Store(sqlite_engine)
    report = ReportIn(segment=0, steps=list(range(num_steps)), times=[0.0] * num_steps)
    asyncio.run(play(sqlite_engine, store, *map(str, range(MOST_REPORTS + 6)), report=report))
    assert sizes(store) == wanted


def test_a_malformed_report_spoils_nothing_for_the_others(sqlite_engine: sa.Engine) -> None:
    store = Store(sqlite_engine)
    answers = asyncio.run(play(sqlite_engine, store, "a", "bad", "c"))
    assert [isinstance(answer, Problem) for answer in answers] == [False, False, True, False]
    assert kept(sqlite_engine) == ["a", "c", "first"]


def test_when_the_database_is_away_all_are_told_and_later_ones_are_taken(sqlite_engine: sa.Engine) -> None:
    store = Store(sqlite_engine)
    store.away = True
    answers = asyncio.run(play(sqlite_engine, store, "a", "b"))
    assert all(isinstance(answer, sa.exc.OperationalError) for answer in answers)
    store.away = False
    (answer,) = asyncio.run(play(sqlite_engine, store))
    assert isinstance(answer, Receipt)
    assert kept(sqlite_engine) == ["first"]
