"""A file comes back as the run that it was, never over another one, and a bad file is one sentence."""

import json
import uuid
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

from db import frames, queries
from db.engine import reading, writing
from db.files import imports, record
from db.lineage import Line
from tests.db.files.exported import add_forked_run, all_of, small_run, values_of, write
from tests.db.files.refusals import refused
from tests.db.seed import NOW, add_run, add_segment, add_steps

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


@pytest.mark.slow
@RULES
@given(parts=reports, details=plain)
def test_a_run_is_imported_from_parquet_unchanged(
    engine: sa.Engine, tmp_path: Path, parts: list[tuple[int, dict[str, Any]]], details: dict[str, Any]
) -> None:
    with writing(engine) as session:
        run = add_forked_run(session, parts, details)
    path = write(engine, run.id, tmp_path / "run.parquet")
    with writing(engine) as session:
        copy, count = imports.import_file(session, path=path, now=NOW, run_id=uuid.uuid4().hex)
        assert count == 4 * len(parts)
        assert all_of(session, copy) == all_of(session, session.merge(run))


@pytest.mark.slow
@RULES
@given(parts=reports)
def test_steps_and_their_segments_are_imported_from_csv(
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


def test_an_existing_run_is_never_overwritten(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
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


def test_a_csv_needs_steps_and_metrics_alone(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
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
    "two columns have the name 'loss'": "step,loss,loss\n0,1,2\n",
    "cannot be the name of a metric": "step,\n0,1\n",
    "row 2: step does not rise above the one before it": "step,loss\n5,1\n5,2\n",
    "invalid value 'high'": "step,loss\n0,1\n1,high\n",
    "row 1: step is missing or not the number of a step": "step,loss\n-4,1\n",
    "row 2: step is missing": "step,loss\n0,1\n,1\n",
    "row 1: time is missing or not a time in unix seconds": "step,time,loss\n0,NaN,1\n",
    "row 1: tokens is beyond any count": "step,tokens\n0,1e300\n",
    "segment 7000 skips 7000 numbers": "segment,step,loss\n7000,0,1\n",
    "Empty CSV|no column": "",
    "field larger than field limit": "step," + "x" * 200_000 + "\n",
}


def test_a_bad_csv_is_one_sentence_and_nothing_is_imported(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    for sentence, text in BAD_CSVS.items():
        path = tmp_path / "bad.csv"
        path.write_text(text, encoding="utf-8")
        refused(sqlite_engine, path, sentence)


def test_a_parquet_file_without_a_run_is_refused(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    pyarrow.parquet.write_table(pa.table({"step": np.arange(3)}), path)
    refused(sqlite_engine, path, "does not hold a run")
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
