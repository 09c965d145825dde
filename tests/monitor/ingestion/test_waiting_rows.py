"""Rows of which nothing more comes are completed after a while, also those of a collector that has gone."""

import asyncio
import math
from typing import Any

import pytest
import sqlalchemy as sa

from db.steps.codec import DamagedBlock
from monitor.ingestion import waiting_rows
from monitor.ingestion.open_rows import HOLD_SECONDS
from monitor.ingestion.reports import ReportResult
from monitor.ingestion.waiting_rows import RETRY_SECONDS, SEARCH_SECONDS, WaitingRows
from tests.monitor.client import NOW, Clock, TestClient, collector
from tests.monitor.mlflow import MlflowClient
from tests.waiting import eventually


@pytest.fixture(autouse=True)
def _short_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_rows, "POLL_SECONDS", 0.01)


def num_waiting(http: TestClient) -> int:
    found: int = http.app.state.collector.waiting_rows.num_waiting  # type: ignore[attr-defined]
    return found


def test_the_last_row_of_a_run_that_is_killed_is_stored_and_detected(http: TestClient, clock: Clock) -> None:
    client = MlflowClient(http)
    client.log("loss", math.nan, step=0)
    assert client.run()["steps_consumed"] == 0
    clock.now += HOLD_SECONDS
    assert eventually(lambda: client.run()["steps_consumed"] == 1)
    assert [incident["kind"] for incident in client.run("/incidents")] == ["nonfinite"]
    assert client.run()["last_report_at"] == NOW  # the client has not reported meanwhile
    assert eventually(lambda: num_waiting(http) == 0)
    assert client.run()["state"] == "running"


def test_a_collector_completes_the_rows_that_another_one_left(sqlite_engine: sa.Engine) -> None:
    with collector(sqlite_engine) as http:
        client = MlflowClient(http)
        client.log("loss", 1.0, step=0)
    with collector(sqlite_engine, clock=lambda: NOW + HOLD_SECONDS) as http:
        client.http = http
        assert eventually(lambda: client.run()["steps_consumed"] == 1)


def test_a_collector_completes_the_rows_of_another_one_that_does_not_come_back(
    sqlite_engine: sa.Engine, clock: Clock
) -> None:
    other = collector(sqlite_engine, clock=clock)
    rows = other.app.state.collector.waiting_rows  # type: ignore[attr-defined]
    asyncio.run(rows.complete_due())  # as at its start
    with collector(sqlite_engine, clock=clock) as http:
        client = MlflowClient(http)
        client.log("loss", 1.0, step=0)
    clock.now += SEARCH_SECONDS
    asyncio.run(rows.complete_due())
    assert num_waiting(other) == 0, "the run has just reported: its collector may be there"
    clock.now += SEARCH_SECONDS
    asyncio.run(rows.complete_due())
    client.http = other
    assert client.run()["steps_consumed"] == 1


def test_an_application_that_runs_in_two_event_loops_ends_in_both(sqlite_engine: sa.Engine) -> None:
    http = collector(sqlite_engine)
    with http as first, TestClient(http.app) as second:
        assert {http.get("/api/v1/runs/nobody").status_code for http in (first, second)} == {404}


def test_the_rows_of_a_run_that_is_deleted_are_forgotten(http: TestClient, clock: Clock) -> None:
    client = MlflowClient(http)
    client.log("loss", 1.0, step=0)
    assert http.delete(f"/api/v1/runs/{client.run_id}").status_code == 204
    clock.now += HOLD_SECONDS
    assert eventually(lambda: num_waiting(http) == 0)


class DamagedRun:
    """A queue of reports that cannot store those of the run `a`, until its steps can be read again."""

    def __init__(self, error: Exception) -> None:
        self.error: Exception | None = error

    async def store(self, run_id: str, *_others: Any) -> ReportResult:
        if run_id == "a" and self.error is not None:
            raise self.error
        return ReportResult(1, 0, ())


@pytest.mark.parametrize("error", [DamagedBlock("a block of run 'a' is damaged"), KeyError("rows")])
def test_a_run_whose_stored_steps_are_damaged_keeps_its_rows_and_delays_no_other(
    sqlite_engine: sa.Engine, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    clock, queue = Clock(), DamagedRun(error)
    waiting = WaitingRows(sqlite_engine, queue, clock)  # type: ignore[arg-type]
    for run_id in ("a", "b"):
        waiting.note(run_id, NOW)
    asyncio.run(waiting.complete_due())
    assert waiting.num_waiting == 1
    assert "rows of run a" in caplog.text
    queue.error = None
    asyncio.run(waiting.complete_due())  # not before its time: the log would be full
    assert waiting.num_waiting == 1
    clock.now += RETRY_SECONDS
    asyncio.run(waiting.complete_due())
    assert waiting.num_waiting == 0


def test_a_run_that_fails_again_and_again_is_logged_once(
    sqlite_engine: sa.Engine, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    waiting = WaitingRows(sqlite_engine, DamagedRun(KeyError("rows")), clock)  # type: ignore[arg-type]
    waiting.note("a", NOW)
    for _ in range(3):
        asyncio.run(waiting.complete_due())
        clock.now += RETRY_SECONDS
    assert len(caplog.records) == 1
