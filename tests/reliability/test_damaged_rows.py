"""Whatever JSON or bytes a row of a run holds: its reports, the leader, pages and frames, and other runs go on."""

import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import streamlit as st

from dashboard.data import cached, run_list
from db import frames, queries
from db.models import Base, JsonList, JsonObject
from db.store.engine import reading
from lossguard.vocabulary.protocol import API
from monitor.app import create_app
from monitor.leader import stall_check
from monitor.problems import MLFLOW_API
from monitor.settings import Settings
from tests.monitor.client import NOW, TestClient, Trainer
from tests.monitor.mlflow import MlflowClient
from tests.monitor.scenarios import CHECKPOINTS, lease_of, noise, obey, probe_event, quiet_since, train_until_nan

COLUMNS = [
    (table.name, column.name)
    for table in Base.metadata.sorted_tables
    for column in table.columns
    if (table.name == "runs" or "run_pk" in table.columns)
    and isinstance(column.type, JsonObject | JsonList | sa.LargeBinary)
]
GARBAGE = {
    "cut": """'{"a": [1, '""",
    "a number": "'7'",
    "a list": """'[1, null, "x", {"a": []}, [2], true]'""",
    "an object": """'{"a": {"b": []}, "detection": 3, "mode": 1, "reasons": 5, "step": {}, "rest": []}'""",
    "deep": f"'{'[' * 5000}{']' * 5000}'",
    "no UTF-8": "cast(x'7b2261223a22ff80227d' as text)",
    "bytes": "x'80ff00'",
    "half a character": r"""'{"a": "\ud800", "\u0000": "\u0000"}'""",
}


@pytest.fixture
def store(sqlite_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> sa.Engine:
    """A run with two incidents, a rollback, blocks and a policy of its own, a run beside it, and one of MLflow."""
    with TestClient(create_app(Settings(), engine=sqlite_engine, clock=lambda: NOW)) as http:
        trainer = Trainer(http, config={"lr": 1.0})
        (order,) = train_until_nan(trainer)["orders"]
        segment, start = obey(trainer, order), order["rewind_to"]
        for first in range(start, start + 2000, 250):
            events = [probe_event(first + 7)]
            values = {"loss": noise(first, 250), "own": noise(3, 250)}
            trainer.report(segment, range(first, first + 250), values, restorable_steps=CHECKPOINTS, events=events)
        trainer.report(segment, [start + 2000], {"loss": [math.nan], "own": [math.inf]})
        http.put(f"{API}/runs/r1/policy", json={"mode": "auto"}).raise_for_status()
        other = Trainer(http, "r2")
        other.report(other.open("a"), range(50), {"loss": noise(1, 50)})
        MlflowClient(http).log_rows(0, {"loss": noise(1, 50)})
    monkeypatch.setenv("LOSSGUARD_DATABASE_URL", str(sqlite_engine.url))
    return sqlite_engine


def copied(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as whole, closing(sqlite3.connect(target)) as copy:
        whole.backup(copy)


@pytest.mark.slow(5)
@pytest.mark.parametrize(
    ("garbage", "columns"),
    [
        ("cut", list({table: (table, column) for table, column in COLUMNS}.values())),  # one of each table
        *(pytest.param(name, COLUMNS, marks=pytest.mark.system) for name in GARBAGE),
    ],
    ids=lambda given: given if isinstance(given, str) else f"{len(given)} columns",
)
def test_a_damaged_row_costs_no_request_of_its_run_and_nothing_of_other_runs(
    store: sa.Engine,
    tmp_path: Path,
    garbage: str,
    columns: list[tuple[str, str]],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert store.url.database is not None
    path, whole = Path(store.url.database), tmp_path / "whole.db"
    copied(path, whole)
    app = create_app(Settings(), engine=store, clock=lambda: NOW)
    monkeypatch.setattr(stall_check, "_FAILED", set())
    found = []
    with TestClient(app, raise_server_exceptions=False) as http:
        for table, column in columns:
            copied(whole, path)
            with store.begin() as connection:
                run_pk = {"runs": "pk = 1", "mlflow_runs": "run_pk = 3"}.get(table, "run_pk = 1")
                connection.exec_driver_sql(f'UPDATE {table} SET "{column}" = {GARBAGE[garbage]} WHERE {run_pk}')
                connection.exec_driver_sql("UPDATE runs SET revision = abs(random()) % 1000000000")
            caplog.clear()
            found += [(table, column, problem) for problem in problems(http, store)]
            found += [
                (table, column, each.message)
                for each in caplog.records
                if each.name == stall_check.__name__ and each.exc_info
            ]
            if "block" not in table:
                check_pages(store)
    assert found == []


def problems(http: TestClient, engine: sa.Engine) -> Iterator[str]:
    with engine.connect() as connection:
        newest = "SELECT number, last_step FROM segments WHERE run_pk = 1 ORDER BY number DESC"
        segment, last = connection.exec_driver_sql(newest).first() or (0, 0)
        mlflow = connection.exec_driver_sql("SELECT id FROM runs WHERE pk = 3").scalar_one()
    opened = {"key": "z", "fork_step": last - 700, "reason": "rewind", "opened_at": NOW}
    registered = {"id": "r1", "project": "gpt", "capabilities": ["rollback"], "started_at": NOW}
    requests: list[tuple[str, dict[str, Any] | None]] = [
        (f"{API}/runs/r1/reports", report(segment, last + 1)),
        (f"{API}/runs/r1/reports", report(segment, last + 2)),
        (f"{API}/runs/r1/reports", report(segment, last - 500)),
        (f"{API}/runs/r1/segments", opened),
        (f"{API}/runs/r1/reports", report(segment + 1, last - 700)),
        (f"{API}/runs/r2/reports", report(0, 50)),
        (
            f"{MLFLOW_API}/runs/log-metric",
            {"run_id": mlflow, "key": "loss", "value": 3.0, "timestamp": round(NOW + 50) * 1000, "step": 50},
        ),
        *((f"{API}/runs/{path}", None) for path in ("r1", "r1/incidents", "r1/costs", "r1/goodput", "r1/policy", "r2")),
        *(
            (path, None)
            for path in (
                f"{API}/runs",
                f"{API}/runs?search=loss<9",
                "/metrics",
                f"{API}/runs/r1/series?metric=loss",
            )
        ),
        (f"{API}/runs", registered),
    ]
    for path, body in requests:
        answer = http.get(path) if body is None else http.post(path, json=body)
        says_damage = body is None and '"title":"the store is damaged"' in answer.text  # what needs a damaged block
        if answer.status_code >= 300 and not says_damage:
            yield f"{path}: {answer.status_code} {answer.text[:200]}"
    quiet_since(engine, step=1300.0)
    if "r2" not in stall_check.look(engine, lease_of(engine)):
        yield "the leader did not find the other run"


def report(segment: int, step: int) -> dict[str, Any]:
    return {"segment": segment, "steps": [step], "times": [NOW], "metrics": {"loss": [3.0]}}


def check_pages(engine: sa.Engine) -> None:
    st.cache_resource.clear()
    with reading(engine) as session:
        runs = queries.runs(session)
        for read in (
            frames.incidents,
            frames.interventions,
            frames.segments,
            frames.events,
            frames.probes,
            frames.goodput,
        ):
            assert len(frames.together(read, session, runs=runs)) >= 0
        assert len(frames.runs(session)) == len(run_list.cards(runs)) == 3
    for run in runs:
        facts = cached.facts(run.id)
        assert facts is not None
        assert cached.breakdown(facts).seconds
        assert len(cached.rewinds(facts)) == (2 if run.id == "r1" else 0)
        assert len([cached.probes(facts, prompt) for prompt in cached.prompts(facts)]) <= 1
