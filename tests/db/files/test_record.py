"""A run as one JSON object: what is wrong with one is said in a sentence."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import sqlalchemy as sa

from db import commands, queries
from db.engine import writing
from db.files import export, imports
from tests.db.files.exported import add_forked_run, small_run, write
from tests.db.files.refusals import refused
from tests.db.seed import NOW


def write_with_bad_description(table: pa.Table, path: Path, spoil: Any) -> None:
    """Write the file again with a changed description."""
    described = json.loads(table.schema.metadata[export.KEY])
    spoil(described)
    pyarrow.parquet.write_table(table.replace_schema_metadata({export.KEY: json.dumps(described)}), path)


BAD_RECORDS = {
    "has format 99": lambda one: one.update(format=99),
    "run: this must be an object with the fields": lambda one: one["run"].update(colour="red"),
    "run.project: 'None' does not fit": lambda one: one["run"].pop("project"),
    r"run.project: '7' does not fit": lambda one: one["run"].update(project=7),
    r"segments\[0\].key: .* does not fit": lambda one: one["segments"][0].update(key="k" * 200),
    "segments: this must be a list": lambda one: one.pop("segments"),
    "a parent is not a segment that has begun": lambda one: one["segments"][1].update(parent=7),
    "one is its own ancestor": lambda one: one["segments"][0].update(parent=1),
    "numbered from 0, in order": lambda one: one["segments"].pop(0),
    "watch: this must be an object with the fields": lambda one: one.update(watch=[]),
    "metrics: this must be a list of metric names": lambda one: one.update(metrics=[4]),
    "the column 'nope' is missing": lambda one: one.update(metrics=["nope"]),
    "segment 1 has 100 steps, but its description says 101": lambda one: one["segments"][1].update(num_steps=101),
    "'a/b' cannot be the id of a run": lambda one: one["run"].update(id="a/b"),
    "contradicts itself": lambda one: one["segments"][1].update(key="a"),
}


def test_a_bad_description_is_one_sentence_and_nothing_is_imported(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    path = write(sqlite_engine, small_run(sqlite_engine), tmp_path / "bad.parquet")
    with writing(sqlite_engine) as session:
        commands.delete_run(session, run=queries.runs(session)[0])
    table = pyarrow.parquet.read_table(path)
    for sentence, spoil in BAD_RECORDS.items():
        write_with_bad_description(table, path, spoil)
        refused(sqlite_engine, path, sentence)


def test_a_file_of_a_release_that_lacked_a_column_is_imported(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    with writing(sqlite_engine) as session:
        run = add_forked_run(session, [(0, {"loss": [1.0] * 4})], {})
    path = write(sqlite_engine, run.id, tmp_path / "r.parquet")
    write_with_bad_description(pyarrow.parquet.read_table(path), path, lambda one: one["incidents"][0].pop("verdict"))
    with writing(sqlite_engine) as session:
        copy, _ = imports.import_file(session, path=path, now=NOW, run_id="copy")
        assert [row.verdict for row in queries.incidents(session, run=copy)] == [None]
