"""What the client reads of a run is what the store has."""

import math
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import sqlalchemy as sa

from db import frames, queries
from db.lineage import Line
from db.store.engine import reading
from lossguard import Client, NotFound, Unreachable
from lossguard.client import client as client_module
from lossguard.client.stored_run import StoredRun
from tests.lossguard.client.answers import serving
from tests.lossguard.client.stored import EXTREME, add_run, client, collector
from tests.monitor.client import NOW, TestClient, Trainer


@pytest.fixture
def http(sqlite_engine: sa.Engine) -> Iterator[TestClient]:
    with collector(sqlite_engine) as http:
        add_run(http)
        yield http


@pytest.fixture
def run(http: TestClient) -> StoredRun:
    return client(http).run("r1")


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)


def stored(engine: sa.Engine, make: Any, **more: Any) -> pd.DataFrame:
    with reading(engine) as session:
        run = queries.run_named(session, run_id="r1")
        assert run is not None
        frame: pd.DataFrame = make(session, run=run, **more)
        return frame


def assert_same_bits(ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
    for name in theirs.select_dtypes("float64"):
        assert ours[name].to_numpy().tobytes() == theirs[name].to_numpy().tobytes(), name


@pytest.mark.parametrize("missing", [(), ("pyarrow",)], ids=["arrow", "csv"])
def test_a_frame_is_that_of_the_store_bit_for_bit(
    run: StoredRun, sqlite_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...]
) -> None:
    live, everything = stored(sqlite_engine, frames.steps), stored(sqlite_engine, frames.steps, line=Line.ALL)
    named = stored(sqlite_engine, frames.steps, metrics=["eval/x,y", "loss"])
    assert len(everything) > len(live) > len(live.dropna(subset="loss")) - 1 > 0
    assert {"metric.step", "metric.step_non_finite", "=formula", "eval/x,y"} < set(live)
    without(monkeypatch, *missing)
    assert_same_bits(run.frame(), live)
    assert_same_bits(run.frame(discarded=True), everything)
    assert_same_bits(run.frame(["eval/x,y", "loss"]), named)
    assert_same_bits(run.frame("loss", steps=(100, 250)), named.loc[100:249, ["segment", "live", "time", "loss"]])
    assert len(run.frame("loss", steps=(507, None))) == 1
    assert run.frame("loss", steps=(10_000, 10_001)).dtypes.to_dict() == {
        "segment": "int64", "live": "bool", "time": "datetime64[us, UTC]", "loss": "float64",
    }  # fmt: skip


def test_the_tables_of_a_run_are_those_of_the_store(run: StoredRun, sqlite_engine: sa.Engine) -> None:
    for make in (frames.incidents, frames.interventions, frames.segments, frames.events, frames.goodput):
        theirs = stored(sqlite_engine, make)
        assert len(theirs)
        pd.testing.assert_frame_equal(getattr(run, make.__name__)(), theirs, check_exact=True)
    costs = run.costs()
    assert costs[["reason", "steps"]].values.tolist() == [["rollback", 51]]
    assert str(costs["first_done_at"].dtype) == "datetime64[us, UTC]"
    series = run.series("eval/x,y", points=100)
    assert series["non_finite"].sum() == 3
    assert series["max"].max() == EXTREME[1]
    assert len(run.series("loss", steps=(10, 12))) == 2


def test_notes_are_a_frame_and_what_a_newer_collector_adds_is_kept() -> None:
    note = b'[{"id": 7, "step": 40, "text": "warm", "author": "ada", "created_at": 1.5, "colour": "red"}]'
    with serving(body=note) as server, Client(server.url) as asks:
        notes = asks.run("a b").notes()
    assert server.requests[0][1] == "/api/v1/runs/a%20b/notes"
    assert (notes.index.name, list(notes)) == ("id", ["step", "text", "author", "created_at", "colour"])
    assert notes.loc[7, "created_at"] == pd.Timestamp("1970-01-01 00:00:01.5", tz="UTC")


def test_without_pandas_the_same_values_are_lists(run: StoredRun, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "pandas", "pyarrow")
    columns = run.frame(["eval/x,y"], steps=(500, None))
    assert list(columns) == ["step", "segment", "live", "time", "eval/x,y"]
    assert (columns["step"], columns["live"]) == (list(range(500, 508)), [True] * 8)
    assert columns["time"][0] == datetime.fromtimestamp(NOW + 500, tz=UTC)
    assert repr(columns["eval/x,y"]) == repr(EXTREME)  # repr tells NaN and -0.0
    incidents = run.incidents()
    assert (incidents["kind"][0], incidents["opened_at"][0].tzinfo) == ("nonfinite", UTC)
    assert math.isclose(sum(run.goodput()["share"]), 1.0)


def test_what_is_not_there_is_named(run: StoredRun, http: TestClient) -> None:
    with pytest.raises(NotFound, match="run 'r1' has no metric 'los'; it has loss, "):
        run.frame("los")
    for ask in (StoredRun.frame, StoredRun.incidents):
        with pytest.raises(NotFound, match="there is no run 'r2'"):
            ask(client(http).run("r2"))
    with pytest.raises(ValueError, match="metrics is empty: name at least one"):
        run.frame([])
    for steps in ((5, 5), (-1, None)):
        with pytest.raises(ValueError, match="holds no step: give the first one"):
            run.frame(steps=steps)


def arrow(table: pa.Table, options: Any = None, **custom: str) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_batch(table.to_batches()[0], custom_metadata=custom or None)
    return bytes(sink.getvalue().to_pybytes())


FEW, MANY = (number.to_bytes(8, "little") for number in (500, 2**33))
COLUMNS = {"step": pa.array([0] * 500), "loss": pa.array([0.0] * 500)}
NOT_PLAIN = {
    "compressed": arrow(pa.table(COLUMNS), pa.ipc.IpcWriteOptions(compression="zstd")),
    "compressed as by Arrow 0.17": arrow(pa.table(COLUMNS), **{"ARROW:experimental_compression": "ZSTD"}),
    "indirect": arrow(pa.table({**COLUMNS, "loss": COLUMNS["loss"].dictionary_encode()})),
    "no bytes per row": arrow(pa.table({**COLUMNS, "loss": pa.nulls(500)})),
    "more rows than bytes": arrow(pa.table(COLUMNS)).replace(FEW, MANY),
    "more behind the end": arrow(pa.table(COLUMNS)) + b"more",
}


@pytest.mark.parametrize("kind", NOT_PLAIN)
def test_a_stream_that_is_more_than_it_takes_to_send_is_refused(kind: str) -> None:
    sentence = "too small|goes on behind its end" if kind.startswith("more") else "something else than plain columns"
    with (
        serving(200, NOT_PLAIN[kind], "application/octet-stream") as server,
        Client(server.url) as client,
        pytest.raises(Unreachable, match=sentence),
    ):
        client.run("r1").frame()


def test_a_stream_that_was_cut_between_two_batches_makes_no_frame(http: TestClient) -> None:
    whole = http.get("/api/v1/runs/r1/export", params={"format": "arrow"}).content
    for cut, sentence in ((whole[:-8], "ended early"), (whole[:700], "cannot be read")):
        with (
            serving(200, cut, "application/vnd.apache.arrow.stream") as server,
            Client(server.url) as asks,
            pytest.raises(Unreachable, match=sentence),
        ):
            asks.run("r1").frame()


def test_runs_are_read_in_pages_and_the_collector_filters_them(
    sqlite_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "PAGE", 2)
    with collector(sqlite_engine) as http:
        for number in range(5):
            config = {"lr": 10.0**-number, "tags": [f"t{number % 2}"]}
            Trainer(http, f"r{number}", project=f"p{number % 2}", config=config, started_at=NOW + number)
        http.post("/api/v1/runs/r3/finish", json={"state": "finished", "at": NOW})
        runs = client(http).runs
        assert list(runs().index) == ["r4", "r3", "r2", "r1", "r0"]
        assert runs().loc["r1", "config"] == {"lr": 0.1, "tags": ["t1"]}
        assert list(runs(project="p1").index) == ["r3", "r1"]
        assert list(runs(state="finished").index) == ["r3"]
        assert list(runs(tags=["t0"], limit=2).index) == ["r4", "r2"]
        assert list(runs(search="lr<0.05").index) == ["r4", "r3", "r2"]
        assert list(runs(since=NOW + 1001).index) == []
        assert runs(project="none").dtypes.to_dict() == runs().dtypes.to_dict()
        with pytest.raises(ValueError, match="limit=0 must be a number of runs, from 1"):
            runs(limit=0)
        with pytest.raises(ValueError, match=r"tags='t0' must be a list of tags, as in \['t0'\]"):
            runs(tags="t0")
