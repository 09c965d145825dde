"""What is exported comes back as it was, whatever it is, and never over something else."""

import json
import math
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from db import commands, frames, queries
from db.engine import reading, writing
from db.files import export, imports, record
from db.files.export import Format
from db.lineage import Line, StepRange
from db.models import Run, Segment
from db.steps import reader
from tests.db.seed import NOW, add_run, add_segment, add_steps, add_story, before_statement

RULES = settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
numbers = st.none() | st.floats(allow_nan=True, allow_infinity=True)
names = st.sampled_from(["loss", "grad_norm", "eval/loss", "time", "metric.time", "live", 'a "b", c', "\u00e9"])
metrics = st.dictionaries(names, st.lists(numbers, min_size=4, max_size=4), min_size=1, max_size=4)
details = st.dictionaries(st.text("ab\u00e9\"'", max_size=3), st.none() | st.integers(-9, 9) | st.text(max_size=4))
plain = details.map(lambda one: json.loads(json.dumps(one).replace("\\u0000", "").encode("utf-8", "replace")))
reports = st.lists(st.tuples(st.integers(0, 6), metrics), min_size=1, max_size=5)


def add_forked_run(session: Session, parts: Sequence[tuple[int, Mapping[str, Any]]], told: Mapping[str, Any]) -> Run:
    """A run whose segments fork off at these steps, four steps each, with a story."""
    run = add_run(session, uuid.uuid4().hex, config=dict(told), policy={"mode": "approve"})
    for at, (fork, columns) in enumerate(parts):
        segment = add_segment(session, run, f"s{at}", fork_step=fork)
        add_steps(session, run, segment, range(fork, fork + 4), **columns)
    add_segment(session, run, "a resume that never reported", fork_step=None)
    add_story(session, run, told)
    return run


def write(engine: sa.Engine, run_id: str, path: Path) -> Path:
    path.write_bytes(b"".join(export.stream(engine, run_id=run_id, format=Format(path.suffix[1:]))))
    return path


def all_of(session: Session, run: Run) -> dict[str, Any]:
    """Everything that the store tells of a run: ids of orders as their places, NaN as text."""
    described = record.describe(session, run=run)
    places = {order["id"]: at for at, order in enumerate(described["orders"])}
    for row in (*described["orders"], *described["segments"], *described["skip_ledger"]):
        row |= {name: places.get(row[name]) for name in ("id", "order_id") if name in row}
    described["run"]["id"] = "same"
    for metric in described["metrics"]:
        described[f"values of {metric}"] = str(values_of(session, run, metric))
        live = queries.live(session, run=run)
        described[f"chart of {metric}"] = str(
            queries.series(session, run=run, step_ranges=live, metric=metric, points=3)
        )
    return described


def values_of(session: Session, run: Run, metric: str) -> list[object]:
    """(segment, step, time, value) in order, None where the metric was not reported."""
    return [
        (block.segment, step, time, value if reported else None)
        for segment in queries.segments(session, run=run)
        for block in reader.read_blocks(
            session, run_pk=run.pk, step_range=StepRange(segment.number, 0, None), metrics=[metric]
        )
        for step, time, value, reported in zip(
            block.steps.tolist(),
            block.times.tolist(),
            block.metrics[metric].values.tolist(),
            block.metrics[metric].reported.tolist(),
            strict=True,
        )
    ]


@RULES
@given(parts=reports, told=plain)
def test_a_run_comes_back_from_parquet_as_it_was(
    engine: sa.Engine, tmp_path: Path, parts: list[tuple[int, dict[str, Any]]], told: dict[str, Any]
) -> None:
    with writing(engine) as session:
        run = add_forked_run(session, parts, told)
    path = write(engine, run.id, tmp_path / "run.parquet")
    with writing(engine) as session:
        copy, count = imports.import_file(session, path=path, now=NOW, run_id=uuid.uuid4().hex)
        assert count == 4 * len(parts)
        assert all_of(session, copy) == all_of(session, session.merge(run))


@RULES
@given(parts=reports)
def test_steps_and_their_tree_come_back_from_csv(
    sqlite_engine: sa.Engine, tmp_path: Path, parts: list[tuple[int, dict[str, Any]]]
) -> None:
    with writing(sqlite_engine) as session:
        run = add_run(session, uuid.uuid4().hex)
        for at, (fork, columns) in enumerate(parts):
            add_steps(session, run, add_segment(session, run, f"s{at}", fork), range(fork, fork + 4), **columns)
    path = write(sqlite_engine, run.id, tmp_path / "run.csv")
    with writing(sqlite_engine) as session:
        copy, _ = imports.import_file(session, path=path, now=NOW, run_id=uuid.uuid4().hex, project="p")
        original = session.merge(run)
        assert queries.metric_names(session, run=copy) == queries.metric_names(session, run=original)
        for metric in queries.metric_names(session, run=copy):
            assert str(values_of(session, copy, metric)) == str(values_of(session, original, metric))
        assert queries.live(session, run=copy) == queries.live(session, run=original)
        assert queries.step_counts(session, run=copy) == queries.step_counts(session, run=original)


def small_run(engine: sa.Engine, **values: Any) -> str:
    with writing(engine) as session:
        run = add_run(session, **values)
        add_steps(session, run, add_segment(session, run, "a"), range(150), loss=[1.0, math.nan, None] * 50)
        add_steps(session, run, add_segment(session, run, "b", fork_step=100), range(100, 200))
        return run.id


def test_a_parquet_file_is_a_plain_table_too(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    table = pd.read_parquet(write(sqlite_engine, small_run(sqlite_engine), tmp_path / "r1.parquet"))
    assert list(table.columns) == ["segment", "step", "time", "live", "loss", "perplexity"]
    assert table.live.sum() == 200
    raw = pyarrow.parquet.read_table(tmp_path / "r1.parquet")["loss"][:3].to_pylist()
    assert (raw[0], math.isnan(raw[1]), raw[2]) == (1.0, True, None)


def test_an_export_that_spans_blocks_holds_every_step_once(engine: sa.Engine, tmp_path: Path) -> None:
    run_id = small_run(engine)
    in_one = write(engine, run_id, tmp_path / "one.csv").read_bytes()
    chunks = list(export.stream(engine, run_id=run_id, format=Format.CSV, max_steps=7))
    assert b"".join(chunks) == in_one
    assert len(chunks) > 30  # none of them holds more than a block


def test_a_run_that_is_there_is_never_overwritten(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    path = write(sqlite_engine, small_run(sqlite_engine), tmp_path / "r1.parquet")
    for given_id in (None, "r1"):
        with (
            pytest.raises(record.RunExists, match="never overwrites; choose another id with --as"),
            writing(sqlite_engine) as s,
        ):
            imports.import_file(s, path=path, now=NOW, run_id=given_id)
    with reading(sqlite_engine) as session:
        assert len(queries.runs(session)) == 1
        assert queries.step_counts(session, run=queries.runs(session)[0]).consumed == 250


def test_a_run_that_was_running_is_interrupted_where_it_is_imported(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    path = write(sqlite_engine, small_run(sqlite_engine), tmp_path / "r1.parquet")
    with writing(sqlite_engine) as session:
        copy, _ = imports.import_file(session, path=path, now=NOW, run_id="copy")
        assert copy.state == "interrupted"


def test_a_run_that_is_deleted_meanwhile_is_no_whole_file(engine: sa.Engine) -> None:
    pieces = export.stream(engine, run_id=small_run(engine), format=Format.PARQUET)
    next(pieces)
    with writing(engine) as session:
        commands.delete_run(session, run=queries.runs(session)[0])
    with pytest.raises(export.RunChanged):
        list(pieces)


def test_a_run_that_is_deleted_in_the_middle_of_a_block_raises(engine: sa.Engine) -> None:
    """The block was counted, then its rows were gone: the error was NumPy's about nothing to concatenate."""

    def delete() -> None:
        with writing(engine) as session:
            for run in queries.runs(session):
                commands.delete_run(session, run=run)

    chunks = export.stream(engine, run_id=small_run(engine), format=Format.PARQUET)
    before_statement(engine, 'SELECT "time"', delete)
    with pytest.raises(export.RunChanged):
        list(chunks)


def test_what_arrives_during_an_export_is_left_out(sqlite_engine: sa.Engine) -> None:
    pieces = export.stream(sqlite_engine, run_id=small_run(sqlite_engine), format=Format.CSV)
    first = next(pieces)
    with writing(sqlite_engine) as session:
        run = queries.runs(session)[0]
        add_steps(session, run, session.get_one(Segment, (run.pk, 1)), range(200, 260))
    assert len(b"".join([first, *pieces]).splitlines()) == 1 + 250


def test_no_database_connection_is_held_between_the_pieces(sqlite_engine: sa.Engine) -> None:
    pieces = export.stream(sqlite_engine, run_id=small_run(sqlite_engine), format=Format.CSV)
    next(pieces)
    assert isinstance(sqlite_engine.pool, sa.pool.QueuePool)
    assert sqlite_engine.pool.checkedout() == 0


def test_a_curve_from_elsewhere_is_imported_with_steps_and_metrics_alone(
    sqlite_engine: sa.Engine, tmp_path: Path
) -> None:
    path = tmp_path / "curve.csv"
    path.write_text("step,loss,eval/acc\n0,3.5,\n10,NaN,0.5\n20,inf,\n", encoding="utf-8")
    with writing(sqlite_engine) as session:
        run, count = imports.import_file(session, path=path, now=NOW)
        assert (run.id, run.project, run.state, count) == ("curve", "imported", "finished", 3)
        frame = frames.steps(session, run=run)
    assert frame.index.tolist() == [0, 10, 20]
    assert frame.loss_non_finite.tolist()[1:] == ["NaN", "Infinity"]
    assert frame["eval/acc"].tolist()[1] == 0.5


def test_segments_that_a_csv_leaves_out_keep_their_numbers(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    path.write_text("segment,step,loss\n0,0,1\n0,1,1\n2,1,2\n", encoding="utf-8")
    with writing(sqlite_engine) as session:
        run, _ = imports.import_file(session, path=path, now=NOW)
        table = frames.segments(session, run=run)
    assert table.fork_step.tolist() == [0, pd.NA, 1]
    assert table.reason.tolist() == ["start", "resume", "rewind"]


BAD_CSVS = {
    "no column `step`": "loss\n1\n",
    "two columns are called 'loss'": "step,loss,loss\n0,1,2\n",
    "cannot be the name of a metric": "step,\n0,1\n",
    "row 2: step does not rise above the one before it": "step,loss\n5,1\n5,2\n",
    "invalid value 'high'": "step,loss\n0,1\n1,high\n",
    "row 1: step is missing or no number of a step": "step,loss\n-4,1\n",
    "row 2: step is missing": "step,loss\n0,1\n,1\n",
    "row 1: time is missing or no time in unix seconds": "step,time,loss\n0,NaN,1\n",
    "row 1: tokens is no count": "step,tokens\n0,1e300\n",
    "leaves out 7000 numbers": "segment,step,loss\n7000,0,1\n",
    "Empty CSV|no column": "",
    "field larger than field limit": "step," + "x" * 200_000 + "\n",
}


def refused(engine: sa.Engine, path: Path, sentence: str) -> None:
    """The import of the file fails with such a sentence, and nothing of it is kept."""
    with pytest.raises(imports.BadFile, match=sentence) as caught, writing(engine) as session:
        imports.import_file(session, path=path, now=NOW)
    assert "\n" not in str(caught.value)
    with reading(engine) as session:
        assert queries.runs(session) == []


def test_a_bad_csv_is_one_sentence_and_nothing_of_it_is_kept(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    for sentence, text in BAD_CSVS.items():
        path = tmp_path / "bad.csv"
        path.write_text(text, encoding="utf-8")
        refused(sqlite_engine, path, sentence)


def spoiled(table: pa.Table, path: Path, spoil: Any) -> None:
    """Write the file again with a changed description."""
    described = json.loads(table.schema.metadata[export.KEY])
    spoil(described)
    pyarrow.parquet.write_table(table.replace_schema_metadata({export.KEY: json.dumps(described)}), path)


BAD_RECORDS = {
    "has format 99": lambda one: one.update(format=99),
    "run: an object with these fields": lambda one: one["run"].update(colour="red"),
    "run.project: 'None' does not fit": lambda one: one["run"].pop("project"),
    r"run.project: '7' does not fit": lambda one: one["run"].update(project=7),
    r"segments\[0\].key: .* does not fit": lambda one: one["segments"][0].update(key="k" * 200),
    "segments: a list belongs here": lambda one: one.pop("segments"),
    "a parent is no segment that has begun": lambda one: one["segments"][1].update(parent=7),
    "one is its own ancestor": lambda one: one["segments"][0].update(parent=1),
    "numbered from 0 on": lambda one: one["segments"].pop(0),
    "watch: an object with these fields": lambda one: one.update(watch=[]),
    "metrics: names of metrics": lambda one: one.update(metrics=[4]),
    "the column 'nope' is missing": lambda one: one.update(metrics=["nope"]),
    "segment 1 has 100 steps, its description tells of 101": lambda one: one["segments"][1].update(num_steps=101),
    "'a/b' cannot be the id of a run": lambda one: one["run"].update(id="a/b"),
    "contradicts itself": lambda one: one["segments"][1].update(key="a"),
}


def test_a_bad_description_is_one_sentence_and_nothing_of_it_is_kept(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    path = write(sqlite_engine, small_run(sqlite_engine), tmp_path / "bad.parquet")
    with writing(sqlite_engine) as session:
        commands.delete_run(session, run=queries.runs(session)[0])
    table = pyarrow.parquet.read_table(path)
    for sentence, spoil in BAD_RECORDS.items():
        spoiled(table, path, spoil)
        refused(sqlite_engine, path, sentence)


def test_a_file_of_a_release_that_lacked_a_column_is_imported(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    with writing(sqlite_engine) as session:
        run = add_forked_run(session, [(0, {"loss": [1.0] * 4})], {})
    path = write(sqlite_engine, run.id, tmp_path / "r.parquet")
    spoiled(pyarrow.parquet.read_table(path), path, lambda one: one["incidents"][0].pop("verdict"))
    with writing(sqlite_engine) as session:
        copy, _ = imports.import_file(session, path=path, now=NOW, run_id="copy")
        assert [row.verdict for row in queries.incidents(session, run=copy)] == [None]


def test_a_parquet_file_of_somebody_else_is_refused(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    pyarrow.parquet.write_table(pa.table({"step": np.arange(3)}), path)
    refused(sqlite_engine, path, "holds no run")
    path.write_bytes(path.read_bytes()[:-20])
    refused(sqlite_engine, path, r"other\.parquet: .")
    refused(sqlite_engine, tmp_path / "nowhere.parquet", "there is no file")


def test_the_lines_of_an_imported_run_are_those_of_the_original(engine: sa.Engine, tmp_path: Path) -> None:
    path = write(engine, small_run(engine), tmp_path / "r1.parquet")
    with writing(engine) as session:
        imports.import_file(session, path=path, now=NOW, run_id="copy")
        original, copy = (queries.run_named(session, run_id=name) for name in ("r1", "copy"))
        assert original is not None
        assert copy is not None
        for line in (*Line, 0, 1):
            assert frames.steps(session, run=copy, line=line).equals(frames.steps(session, run=original, line=line))
