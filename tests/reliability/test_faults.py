"""Whatever happens to the collector and its database, acknowledged steps are stored once and verdicts do not change."""

import resource
import threading
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
from tests.reliability.training import Training, trainings, wait_for_reports
from tests.waiting import eventually


@pytest.mark.slow(10)
def test_a_collector_that_is_killed_repeatedly_neither_loses_nor_duplicates_a_step(
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


@pytest.mark.slow(10)
def test_a_full_disk_is_answered_with_503_and_everything_is_delivered_afterwards(
    on_sqlite: CollectorProcess, tmp_path: Path
) -> None:
    """The kernel refuses to let the collector's files grow while the trainer retries; then it allows it again."""
    undisturbed = Trainer([on_sqlite.url], "undisturbed")
    train(undisturbed)
    trainer = Trainer([on_sqlite.url], "full")
    soft, hard = resource.prlimit(on_sqlite.pid, resource.RLIMIT_FSIZE)
    worker = threading.Thread(target=train, args=(trainer,))
    resource.prlimit(on_sqlite.pid, resource.RLIMIT_FSIZE, (4096, hard))
    worker.start()
    assert eventually(lambda: trainer.retries > 3)
    assert worker.is_alive()
    resource.prlimit(on_sqlite.pid, resource.RLIMIT_FSIZE, (soft, hard))
    worker.join(120)
    assert not worker.is_alive()
    assert (verdicts(trainer), history(trainer)) == (verdicts(undisturbed), history(undisturbed))


@pytest.mark.slow(10)
@pytest.mark.needs("postgresql")
def test_a_collector_reconnects_to_a_database_that_crashed(tmp_path: Path) -> None:
    with postgres.running(durable=True) as server:
        collector = CollectorProcess(server.url(), tmp_path / "log")
        collector.start()
        collector.wait_until_up()
        undisturbed = Training([collector.url], "undisturbed")
        undisturbed.start()
        expected = undisturbed.outcome()
        with trainings([collector.url], num_runs=1, seconds=0.05) as (crashes,):
            for _ in range(3):
                wait_for_reports([crashes])
                server.stop("immediate")
                _wait_for_a_retry(crashes.trainer)
                server.start()
        assert crashes.outcome() == expected
        collector.stop()


def _wait_for_a_retry(trainer: Trainer) -> None:
    before = trainer.retries
    assert eventually(lambda: trainer.retries > before)


@pytest.mark.slow(10)
def test_a_clock_that_is_set_back_changes_no_verdict(engine: sa.Engine) -> None:
    """Steps are ordered by their number, orders by their id; the clock is only recorded."""
    now = [NOW]
    outcomes: list[Any] = []
    for run_id, jump in (("steady", 1.0), ("back", -3600.0)):
        with TestClient(create_app(Settings(), engine=engine, clock=lambda: now[0])) as http:
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
