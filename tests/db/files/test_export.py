"""An export is a stream of blocks: whole, plain to read, and never a mixture of two moments."""

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
import sqlalchemy as sa

from db import commands, queries
from db.files import export, imports
from db.files.export import Format
from db.lineage import Line
from db.models import Segment
from db.store.engine import writing
from tests.db.files.exported import small_run, write
from tests.db.seed import NOW, add_run, add_segment, add_steps, before_statement, stored_run


def test_a_parquet_file_is_a_plain_table_too(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    table = pd.read_parquet(write(sqlite_engine, small_run(sqlite_engine), tmp_path / "r1.parquet"))
    assert list(table.columns) == ["segment", "step", "time", "live", "loss", "perplexity"]
    assert table.live.sum() == 200
    raw = pyarrow.parquet.read_table(tmp_path / "r1.parquet")["loss"][:3].to_pylist()
    assert (raw[0], math.isnan(raw[1]), raw[2]) == (1.0, True, None)


def test_an_export_that_spans_blocks_holds_every_step_once(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    run_id = small_run(sqlite_engine)
    in_one = write(sqlite_engine, run_id, tmp_path / "one.csv").read_bytes()
    chunks = list(export.stream(sqlite_engine, run_id=run_id, format=Format.CSV, max_steps=7))
    assert b"".join(chunks) == in_one
    assert len(chunks) > 30  # none of them holds more than a block


@pytest.mark.parametrize("then", ["none", "another run with its key"])
def test_a_run_that_is_deleted_between_two_blocks_raises(sqlite_engine: sa.Engine, then: str) -> None:
    chunks = export.stream(sqlite_engine, run_id=small_run(sqlite_engine), format=Format.ARROW, max_steps=7)
    next(chunks)
    with writing(sqlite_engine) as session:
        commands.delete_run(session, run=queries.runs(session)[0])
    if then != "none":
        small_run(sqlite_engine, run_id="other")
    with pytest.raises(export.RunDeleted):
        list(chunks)


def test_a_run_that_is_deleted_in_the_middle_of_a_block_raises(engine: sa.Engine) -> None:
    def delete() -> None:
        with writing(engine) as session:
            for run in queries.runs(session):
                commands.delete_run(session, run=run)

    chunks = export.stream(engine, run_id=small_run(engine), format=Format.PARQUET)
    before_statement(engine, "SELECT 0, step, time", delete)
    with pytest.raises(export.RunDeleted):
        list(chunks)


def test_steps_that_arrive_during_an_export_are_left_out(sqlite_engine: sa.Engine) -> None:
    chunks = export.stream(sqlite_engine, run_id=small_run(sqlite_engine), format=Format.CSV)
    first = next(chunks)
    with writing(sqlite_engine) as session:
        run = queries.runs(session)[0]
        add_steps(session, run, session.get_one(Segment, (run.pk, 1)), range(200, 260))
    assert len(b"".join([first, *chunks]).splitlines()) == 1 + 250


def test_an_export_can_be_imported_if_a_late_step_arrives_meanwhile(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    with writing(sqlite_engine) as session:
        run = add_run(session)
        add_steps(session, run, add_segment(session, run, "a"), [step for step in range(300) if step != 250])
    chunks = export.stream(sqlite_engine, run_id="r1", format=Format.PARQUET, max_steps=100)
    first = next(chunks)
    with writing(sqlite_engine) as session:
        add_steps(session, stored_run(session), session.get_one(Segment, (run.pk, 0)), [250])
    path = tmp_path / "r1.parquet"
    path.write_bytes(b"".join([first, *chunks]))
    with writing(sqlite_engine) as session:
        assert imports.import_file(session, path=path, now=NOW, run_id="copy")[1] == 300


def test_no_database_connection_is_held_between_two_blocks(sqlite_engine: sa.Engine) -> None:
    chunks = export.stream(sqlite_engine, run_id=small_run(sqlite_engine), format=Format.CSV)
    next(chunks)
    assert isinstance(sqlite_engine.pool, sa.pool.QueuePool)
    assert sqlite_engine.pool.checkedout() == 0


def arrow(engine: sa.Engine, run_id: str, **selected: Any) -> pa.Table:
    chunks = export.stream(
        engine, run_id=run_id, format=Format.ARROW, selection=export.StepSelection(**selected), max_steps=7
    )
    return pa.ipc.open_stream(b"".join(chunks)).read_all()


def test_an_arrow_stream_holds_what_is_selected_in_the_order_of_the_line(sqlite_engine: sa.Engine) -> None:
    run_id = small_run(sqlite_engine)
    whole = arrow(sqlite_engine, run_id)
    assert whole.num_rows == 250
    live = arrow(sqlite_engine, run_id, line=Line.LIVE, metrics=("loss",))
    assert live.column_names == ["segment", "step", "time", "live", "loss"]
    assert (live["step"].to_pylist(), set(live["live"].to_pylist())) == (list(range(200)), {True})
    first = live["loss"][:3].to_pylist()
    assert (first[0], math.isnan(first[1]), first[2]) == (1.0, True, None)
    some = arrow(sqlite_engine, run_id, line=Line.LIVE, first=95, last=104)
    assert some["step"].to_pylist() == list(range(95, 105))
    discarded = arrow(sqlite_engine, run_id, line=Line.DISCARDED)
    assert discarded.num_rows == 50
    assert set(discarded["live"].to_pylist()) == {False}
    assert arrow(sqlite_engine, run_id, first=10_000).num_rows == 0


def test_a_metric_that_the_run_does_not_have_is_refused_with_those_that_it_has(sqlite_engine: sa.Engine) -> None:
    with pytest.raises(export.UnknownMetric, match="run 'r1' has no metric 'los'; it has loss, perplexity"):
        arrow(sqlite_engine, small_run(sqlite_engine), metrics=("loss", "los"))
