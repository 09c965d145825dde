"""Several collectors with one database, PostgreSQL or SQLite on one machine: one history, one set of verdicts."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from db import commands, migrate, queries
from db.store.engine import create_engine, reading, writing
from monitor.app import create_app
from monitor.settings import Settings
from tests.db.seed import NOW, add_run, add_segment
from tests.monitor.client import TestClient
from tests.monitor.client import Trainer as InProcess
from tests.reliability.collector import CollectorProcess, Trainer, history, reports, running, verdicts

Deliver = Callable[[Trainer, Any], dict[str, Any]]


@pytest.fixture
def pair(database_url: str, tmp_path: Path) -> Iterator[list[CollectorProcess]]:
    """Two collectors that started at the same moment on one empty database."""
    collectors = [CollectorProcess(database_url, tmp_path / f"{number}.log") for number in range(2)]
    with running(*collectors):
        yield collectors


def in_turn(trainer: Trainer, body: Any) -> dict[str, Any]:
    return trainer.report(body)


def to_both_at_once(trainer: Trainer, body: Any) -> dict[str, Any]:
    """Like a retry that overtakes the first attempt."""
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda url: trainer.report(body, url=url), trainer.urls))
    assert sorted(answer["accepted"] for answer in answers) == [0, len(body["steps"])]
    return max(answers, key=lambda answer: len(answer["orders"]))


def train(trainer: Trainer, deliver: Deliver) -> None:
    """Report 300 quiet steps, a NaN, the ordered rollback, and the steps up to its verification."""
    for body in reports(trainer.open("a"), 0, 310, 10, seed=1, nan_at=300):
        deliver(trainer, body)
    (order,) = trainer.orders.values()
    for body in reports(trainer.obey(order, "b"), order["rewind_to"], 520, 10, seed=7):
        deliver(trainer, body)


@pytest.mark.system
def test_two_collectors_give_one_history_and_one_set_of_verdicts(pair: list[CollectorProcess]) -> None:
    urls = [collector.url for collector in pair]
    alone = Trainer(urls[:1], "alone")
    train(alone, in_turn)
    expected = verdicts(alone)
    assert [one["state"] for one in expected["interventions"]] == ["verified"]
    for run_id, deliver in (("in-turn", in_turn), ("at-once", to_both_at_once)):
        trainer = Trainer(urls, run_id)
        train(trainer, deliver)
        assert verdicts(trainer) == expected, run_id
        assert history(trainer) == history(alone), run_id


@pytest.mark.system
def test_two_collectors_that_get_the_same_request_at_once_create_one_run_and_one_segment(
    pair: list[CollectorProcess],
) -> None:
    for attempt in range(10):
        with ThreadPoolExecutor(2) as pool:
            trainers = list(pool.map(lambda one: Trainer([one.url], f"new-{attempt}"), pair))  # noqa: B023
            numbers = list(pool.map(lambda trainer: trainer.open("a"), trainers))
        assert numbers == [0, 0]
    assert len(trainers[0].send("GET", "/runs")) == 10


@pytest.mark.system
def test_different_reports_at_once_are_all_stored_once(pair: list[CollectorProcess]) -> None:
    trainer = Trainer([collector.url for collector in pair], "spread")
    bodies = reports(trainer.open("a"), 0, 400, 10, seed=1)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda at: trainer.report(bodies[at // 2], url=trainer.urls[at % 2]), range(80)))
    assert sum(answer["accepted"] for answer in answers) == 400
    series = trainer.get("/series?metric=loss&points=20000")
    assert series["last"] == [value for body in bodies for value in body["metrics"]["loss"]]
    coarse = trainer.get("/series?metric=loss&points=10")
    assert (sum(coarse["count"]), coarse["first"][0], coarse["last"][-1]) == (
        400,
        series["first"][0],
        series["last"][-1],
    )


def test_collectors_that_start_at_once_create_the_schema_once(database_url: str) -> None:
    barrier, failures = threading.Barrier(4), []

    def start() -> None:
        engine = create_engine(database_url)
        barrier.wait()
        try:
            migrate.upgrade(engine)
        except sa.exc.SQLAlchemyError as error:
            failures.append(error)
        engine.dispose()

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    engine = create_engine(database_url)
    assert migrate.drift(engine) is None
    engine.dispose()


def test_a_locked_run_shows_the_changes_of_another_collector(engine: sa.Engine) -> None:
    with writing(engine) as session:
        add_segment(session, add_run(session), "a")
    with reading(engine) as session:
        run = queries.run_named(session, run_id="r1")
        assert run is not None
        session.commit()
        with writing(engine) as other:
            changed = queries.run_named(other, run_id="r1")
            assert changed is not None
            changed.restorable_steps = [50]
        locked = commands.lock_run(session, run_id="r1")
        assert locked is run
        assert run.restorable_steps == [50]
        assert run.last_report_at == NOW


def test_a_clock_that_is_set_back_changes_no_verdict(sqlite_engine: sa.Engine) -> None:
    """Steps are ordered by their number, orders by their id; the clock is only recorded."""
    now = [NOW]
    outcomes: list[Any] = []
    for run_id, jump in (("steady", 1.0), ("back", -3600.0)):
        with TestClient(create_app(Settings(), engine=sqlite_engine, clock=lambda: now[0])) as http:
            trainer = InProcess(http, run_id)
            for body in reports(trainer.open("a"), 0, 310, 10, seed=1, nan_at=300):
                now[0] += jump
                answer = http.post(f"/api/v1/runs/{run_id}/reports", json=body)
                assert answer.status_code == 200, answer.text
            (order,) = answer.json()["orders"]
            fields = ("kind", "state", "onset_step", "detected_step", "score")
            incidents = [[row[name] for name in fields] for row in trainer.get("/incidents")]
            outcomes.append([order["rewind_to"], order["skip_to"], incidents])
    assert outcomes[0] == outcomes[1]
