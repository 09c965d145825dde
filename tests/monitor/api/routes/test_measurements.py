"""A metric over steps, samples of the hardware, and a run as a file, over HTTP."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from db import queries
from db.files import imports, record
from db.steps.archived.places import Place
from db.store.engine import reading, writing
from lossguard.vocabulary.hardware import MAX_ERRORS
from lossguard.vocabulary.protocol import API
from tests.db.archive.stored import add_ended_run, archive
from tests.monitor.client import NOW, TestClient, Trainer, collector
from tests.monitor.scenarios import noise, obey, train_until_nan


def test_custom_metrics_have_series_too(http: TestClient) -> None:
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), [0, 1], {"loss": [1.0, 1.0], "eval/loss": [None, 2.5]})
    assert trainer.get("/series", metric="eval/loss")["last"] == [2.5]
    assert trainer.get()["metrics"] == ["loss", "perplexity", "eval/loss"]


def test_archived_steps_that_cannot_be_read_are_one_sentence_and_a_chart_of_the_whole_run_works(
    http: TestClient, sqlite_engine: sa.Engine, tmp_path: Path
) -> None:
    with writing(sqlite_engine) as session:
        add_ended_run(session)
    archive(sqlite_engine, Place(str(tmp_path / "place")))
    shutil.rmtree(tmp_path / "place")
    path = f"{API}/runs/r1/series?metric=loss&points="
    assert http.get(f"{path}3").status_code == 200
    answer = http.get(f"{path}2000")
    assert (answer.status_code, answer.json()["title"]) == (503, "archived steps cannot be read")
    detail = answer.json()["detail"]
    assert detail.startswith("the archived steps 0 to 511 of the run 'r1' cannot be read: cannot read file://")
    assert detail.endswith("is it mounted? The folder has no file lossguard-archive.txt")


def sample(time: float, step: int | None = 7, **values: Any) -> dict[str, Any]:
    return {"time": NOW + time, "step": step, "host": "node-1", "device": "gpu0", "values": values}


def test_samples_come_back_as_they_were_reported(http: TestClient) -> None:
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), [], {}, hardware=[sample(0, None, power=600.0), sample(15, ecc_errors=1.0)])
    assert trainer.get("/hardware") == [
        sample(0, None, power=600.0) | {"num_errors": 0},
        sample(15, ecc_errors=1.0) | {"num_errors": 1},
    ]
    assert [one["step"] for one in trainer.get("/hardware", errors=True)] == [7]
    assert trainer.get("/hardware", **{"from": NOW + 1, "to": NOW + 2}) == []


def test_a_broken_counter_of_errors_does_not_stop_the_reports_of_its_run(http: TestClient) -> None:
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), [0], {"loss": [2.0]}, hardware=[sample(0, ecc_errors=2.0**64, xid_errors=-1.0)])
    (stored,) = trainer.get("/hardware")
    assert (stored["num_errors"], stored["values"]["ecc_errors"]) == (MAX_ERRORS, 2.0**64)


def test_an_unknown_run_and_a_value_that_is_no_number_are_refused(http: TestClient) -> None:
    assert http.get(f"{API}/runs/none/hardware").status_code == 404
    trainer = Trainer(http)
    body = {"segment": trainer.open("a"), "steps": [], "hardware": [sample(0, power="NaN")]}
    answer = http.post(f"{API}/runs/r1/reports", json=body)
    assert answer.status_code == 422
    assert "power" in str(answer.json()["where"])


def test_a_rolled_back_run_is_exported_and_is_imported_with_all_that_belongs_to_it(
    http: TestClient, sqlite_engine: sa.Engine, tmp_path: Path
) -> None:
    trainer = Trainer(http)
    (order,) = train_until_nan(trainer)["orders"]
    trainer.report(obey(trainer, order), range(200, 500), {"loss": noise(3, 300), "eval/loss": [None] * 300})
    answer = http.get(f"{API}/runs/r1/export")
    assert answer.headers["content-type"] == "application/vnd.apache.parquet"
    assert answer.headers["content-disposition"] == 'attachment; filename="r1.parquet"'
    path = tmp_path / "r1.parquet"
    path.write_bytes(answer.content)
    with writing(sqlite_engine) as session:
        copy, count = imports.import_file(session, path=path, now=NOW, run_id="copy")
        assert count == 301 + 300
        run = queries.run_named(session, run_id="r1")
        assert run is not None
        copied, original = record.describe(session, run=copy), record.describe(session, run=run)
    for name in ("incidents", "interventions", "events", "watch", "metrics"):
        assert copied[name] == original[name]
        assert name in ("events",) or copied[name]
    # The detection continues from its saved state: the next spike is the next incident, not the first one again.
    again = Trainer(http, "copy")
    again.report(1, [500], {"loss": [float("nan")]})
    assert [one["number"] for one in again.get("/incidents")] == [1, 2]


def test_csv_is_the_steps_alone(http: TestClient) -> None:
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), [0, 1, 2], {"eval/loss": [1.5, None, float("-inf")]})
    answer = http.get(f"{API}/runs/r1/export", params={"format": "csv"})
    assert answer.headers["content-type"].startswith("text/csv")
    rows = [line.split(",") for line in answer.text.splitlines()]
    assert rows[0] == ['"segment"', '"step"', '"time"', '"live"', '"eval/loss"']
    assert [row[-1] for row in rows[1:]] == ["1.5", "", "-inf"]


def test_what_cannot_be_exported_is_a_problem(http: TestClient) -> None:
    answer = http.get(f"{API}/runs/nope/export")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    Trainer(http)
    wrong = http.get(f"{API}/runs/r1/export", params={"format": "xlsx"})
    assert (wrong.status_code, wrong.json()["where"]) == (422, ["query", "format"])


def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(sqlite_engine: sa.Engine) -> None:
    with collector(sqlite_engine) as http:
        trainer = Trainer(http)
        trainer.report(trainer.open("a"), range(100), {"loss": [1.0] * 100})
        scope: dict[str, Any] = {"type": "http", "method": "GET", "path": f"{API}/runs/r1/export"}
        scope |= {"query_string": b"format=csv"}
        scope |= {
            "headers": [(b"host", b"127.0.0.1")],
            "client": ("127.0.0.1", 1),
            "asgi": {"version": "3.0", "spec_version": "2.4"},
        }

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.body":
                raise OSError("the client is gone")

        with pytest.raises(Exception, match=r"gone|^$"):
            asyncio.run(http.app(scope, receive, send))  # type: ignore[arg-type]
        assert isinstance(sqlite_engine.pool, sa.pool.QueuePool)
        assert sqlite_engine.pool.checkedout() == 0
        trainer.report(0, [100], {"loss": [1.0]})
    with reading(sqlite_engine) as session:
        assert queries.step_counts(session, run=queries.runs(session)[0]).consumed == 101


def test_a_selection_of_metrics_and_steps_is_a_stream_of_arrow_or_csv_and_never_parquet(http: TestClient) -> None:
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), [0, 1, 2], {"eval/loss": [1.5, None, float("-inf")], "a,b": [1.0, 2.0, 3.0]})
    trainer.report(trainer.open("b", 2, "rewind"), [2, 3], {"eval/loss": [0.5, 0.25]})
    path = f"{API}/runs/r1/export"
    query: dict[str, Any] = {"metrics": ["a,b", "eval/loss"], "line": "live", "from": 1, "to": 2}
    answer = http.get(path, params=query | {"format": "arrow"})
    assert answer.headers["content-type"] == "application/vnd.apache.arrow.stream"
    table = pa.ipc.open_stream(answer.content).read_all()
    assert table.to_pydict() == {
        "segment": [0, 1], "step": [1, 2], "time": [NOW + 1, NOW + 2], "live": [True, True],
        "a,b": [2.0, None], "eval/loss": [None, 0.5],
    }  # fmt: skip
    lines = http.get(path, params=query | {"format": "csv"}).text.splitlines()
    assert [line.split(",")[1] for line in lines[1:]] == ["1", "2"]
    whole = http.get(path, params=query)
    assert (whole.status_code, whole.json()["where"]) == (422, ["query", "format"])
    assert whole.json()["detail"].startswith("a Parquet file holds the whole run: leave out metrics, line, from and to")
    unknown = http.get(path, params={"format": "arrow", "metrics": "los"})
    assert (unknown.status_code, unknown.json()["detail"]) == (
        404,
        "run 'r1' has no metric 'los'; it has a,b, eval/loss",
    )
