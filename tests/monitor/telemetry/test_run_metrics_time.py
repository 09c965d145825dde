"""The time of running runs between scrapes: of every run in time, and of few in one scrape."""

import pytest
import sqlalchemy as sa

from db.models import Run, StoredBlock
from db.records import live_runs
from db.steps import writer
from db.store.engine import reading, writing
from monitor.telemetry import run_metrics
from monitor.telemetry.run_metrics import MAX_AGE_SECONDS, RunTimeCache
from tests.monitor.client import NOW, TestClient, Trainer, collector


def test_each_scrape_reads_few_runs_anew_and_the_oldest_first(
    http: TestClient, sqlite_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_metrics, "MAX_READS", 2)
    for number in range(3):
        trainer = Trainer(http, f"r{number}")
        trainer.report(trainer.open("a"), range(5), {"loss": [1.0] * 5})
    cache = RunTimeCache()

    def totals(after: float, limit: int = 3) -> list[float]:
        with reading(sqlite_engine) as session:
            shown = [run.run_pk for run in live_runs.shown(session, limit=limit)]
            found = cache.read(session, shown, NOW + after)
            return sorted(breakdown.total for _, breakdown in found.values())

    assert totals(10) == [10, 10]
    assert totals(11) == [10, 10, 11]
    assert totals(10 + MAX_AGE_SECONDS) == [11, 40, 40]
    assert totals(20 + MAX_AGE_SECONDS) == [40, 40, 50]
    assert len(totals(21 + MAX_AGE_SECONDS, limit=1)) == 1
    assert len(cache._read) == 1


def test_what_is_stored_of_several_runs_is_read_by_as_many_statements_as_of_one(sqlite_engine: sa.Engine) -> None:
    with collector(sqlite_engine) as http:  # else it asks meanwhile
        for number in range(4):
            Trainer(http, f"r{number}").open("a")
    statements: list[str] = []
    sa.event.listen(sqlite_engine, "before_cursor_execute", lambda _, __, statement, *___: statements.append(statement))

    def num_statements(limit: int) -> int:
        with reading(sqlite_engine) as session:
            shown = [run.run_pk for run in live_runs.shown(session, limit=limit)]
            statements.clear()
            assert len(RunTimeCache().read(session, shown, NOW)) == limit
            return len(statements)

    assert num_statements(1) == num_statements(4)


def test_a_run_with_a_damaged_block_has_no_time_and_the_others_have_theirs(
    http: TestClient, sqlite_engine: sa.Engine
) -> None:
    for run_id in ("damaged", "whole"):
        trainer = Trainer(http, run_id)
        trainer.report(trainer.open("a"), range(writer.PACK_AT), {"loss": [1.0] * writer.PACK_AT})
    with writing(sqlite_engine) as session:
        damaged = sa.select(Run.pk).where(Run.id == "damaged").scalar_subquery()
        session.execute(sa.update(StoredBlock).where(StoredBlock.run_pk == damaged).values(times=b"\x01cut"))
    lines = http.get("/metrics").text.splitlines()
    of_time = [line for line in lines if line.startswith("lossguard_run_time_seconds{")]
    assert {line.partition('run="')[2].partition('"')[0] for line in of_time} == {"whole"}
    assert any(line.startswith("lossguard_step{") and 'run="damaged"' in line for line in lines)
