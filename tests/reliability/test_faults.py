"""Whatever happens to the collector and its database: what was acknowledged is there, once, and judged as in peace."""

import resource
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from monitor.app import create_app
from monitor.settings import Settings
from tests import postgres
from tests.monitor.client import NOW, TestClient
from tests.monitor.client import Trainer as InProcess
from tests.reliability.collector import CollectorProcess, Trainer, history, reports, verdicts
from tests.reliability.drill import drill, train
from tests.waiting import wait_for


@pytest.mark.slow
def test_a_collector_that_is_killed_again_and_again_loses_and_doubles_nothing(
    database_url: str, tmp_path: Path
) -> None:
    result = drill(database_url, tmp_path, kills=5, seed=1)
    assert result.failures == []
    assert (result.kills, result.runs >= 3, result.retries > 0) == (5, True, True)


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Iterator[CollectorProcess]:
    collector = CollectorProcess(f"sqlite:///{tmp_path}/store.db", tmp_path / "log")
    collector.start()
    collector.wait_until_up()
    yield collector
    collector.stop()


@pytest.mark.slow
def test_a_full_disk_is_answered_with_503_and_afterwards_all_is_delivered(
    on_sqlite: CollectorProcess, tmp_path: Path
) -> None:
    """The kernel refuses to let the collector's files grow; the trainer keeps sending; then there is space again."""
    peace = Trainer([on_sqlite.url], "peace")
    train(peace)
    trainer = Trainer([on_sqlite.url], "full")
    soft, hard = resource.prlimit(on_sqlite.pid, resource.RLIMIT_FSIZE)
    worker = threading.Thread(target=train, args=(trainer,))
    resource.prlimit(on_sqlite.pid, resource.RLIMIT_FSIZE, (4096, hard))
    worker.start()
    wait_for(lambda: trainer.retries > 3, seconds=60, what="the trainer sends again")
    assert worker.is_alive()
    resource.prlimit(on_sqlite.pid, resource.RLIMIT_FSIZE, (soft, hard))
    worker.join(120)
    assert not worker.is_alive()
    assert (verdicts(trainer), history(trainer)) == (verdicts(peace), history(peace))


@pytest.mark.slow
@pytest.mark.needs("postgresql")
def test_a_collector_survives_crashes_of_its_database(tmp_path: Path) -> None:
    with postgres.running(durable=True) as server:
        collector = CollectorProcess(server.url(), tmp_path / "log")
        collector.start()
        collector.wait_until_up()
        peace, trainer = Trainer([collector.url], "peace"), Trainer([collector.url], "shaken")
        train(peace)
        worker = threading.Thread(target=train, args=(trainer,))
        worker.start()
        for _ in range(3):
            time.sleep(0.3)
            server.stop("immediate")
            time.sleep(0.3)
            server.start()
        worker.join(120)
        assert not worker.is_alive()
        assert trainer.retries > 0
        assert (verdicts(trainer), history(trainer)) == (verdicts(peace), history(peace))
        collector.stop()


def test_a_clock_that_is_set_back_changes_no_verdict(engine: sa.Engine) -> None:
    """Steps are ordered by their number, orders by their id; the clock is only written down."""
    now = [NOW]
    found: list[Any] = []
    for run_id, jump in (("steady", 1.0), ("back", -3600.0)):
        with TestClient(create_app(Settings(), engine=engine, clock=lambda: now[0])) as http:
            trainer = InProcess(http, run_id)
            for body in reports(trainer.open("a"), 0, 310, 10, seed=1, bad_at=300):
                now[0] += jump
                answer = http.post(f"/api/v1/runs/{run_id}/reports", json=body)
                assert answer.status_code == 200, answer.text
            (order,) = answer.json()["orders"]
            kept = ("kind", "state", "onset_step", "detected_step", "score")
            incidents = [[row[name] for name in kept] for row in trainer.get("/incidents")]
            found.append([order["rewind_to"], order["skip_to"], incidents])
    assert found[0] == found[1]
