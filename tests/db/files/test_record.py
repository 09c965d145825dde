"""A run as one JSON object: what is wrong with one is said in a sentence."""

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import sqlalchemy as sa

from db import commands, queries
from db.files import export, imports, record
from db.files.rules import BadRecord
from db.models import MAX_AUTHOR, Intervention, Order
from db.records import arms, step_notes
from db.store.engine import writing
from lossguard.vocabulary.states import RunState
from tests.db.files.exported import add_forked_run, refused, small_run, write
from tests.db.seed import NOW


def write_with_bad_description(table: pa.Table, path: Path, spoil: Any) -> None:
    """Write the file again with a changed description."""
    described = json.loads(table.schema.metadata[export.KEY])
    spoil(described)
    pyarrow.parquet.write_table(table.replace_schema_metadata({export.KEY: json.dumps(described)}), path)


def test_a_file_that_lacks_a_list_or_a_column_is_imported_and_its_run_goes_on_nowhere(
    sqlite_engine: sa.Engine, tmp_path: Path
) -> None:
    with writing(sqlite_engine) as session:
        run = add_forked_run(session, [(0, {"loss": [1.0] * 4})], {})
        run.state = RunState.RUNNING
    path = write(sqlite_engine, run.id, tmp_path / "r.parquet")

    def shorten(one: Any) -> None:
        del one["arms"], one["incidents"][0]["verdict"]

    write_with_bad_description(pyarrow.parquet.read_table(path), path, shorten)
    with writing(sqlite_engine) as session:
        copy, _ = imports.import_file(session, path=path, now=NOW, run_id="copy")
        assert (copy.state, arms.of_run(session, run=copy)) == ("interrupted", [])
        assert [row.verdict for row in queries.incidents(session, run=copy)] == [None]


EVENT = {"key": "e", "segment": 0, "step": 3, "time": NOW, "kind": "note", "details": {}}


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


BAD_RECORDS = {
    "has format '99'": lambda one: one.update(format=99),
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
    "metric names, each of them once": lambda one: one.update(metrics=["loss", "loss"]),
    r"run.config: '\[1\]' does not fit: it must be a JSON object": lambda one: one["run"].update(config=[1]),
    "run.config: .* does not fit: it must be a JSON object of at most 16 levels": lambda one: one["run"].update(
        config=nested(17)
    ),
    "run.state: 'hacked' does not fit: it must be one of running, finished": lambda one: one["run"].update(
        state="hacked"
    ),
    "run.started_at: '1e.300' does not fit: it must be a time": lambda one: one["run"].update(started_at=1e300),
    "run.last_report_at: 'nan' does not fit": lambda one: one["run"].update(last_report_at=math.nan),
    "run.finished_at: '-1' does not fit": lambda one: one["run"].update(finished_at=-1),
    "run.project: 'a.*b' does not fit: it must be a name": lambda one: one["run"].update(project="a\nb"),
    "run.name: .* does not fit": lambda one: one["run"].update(name="a\0"),
    "run.devices: .* does not fit": lambda one: one["run"].update(devices=[{"a": 1}]),
    "run.versions: .* does not fit": lambda one: one["run"].update(versions={"torch": 2}),
    "run.capabilities: .* does not fit": lambda one: one["run"].update(capabilities=["x"] * 1025),
    "run.restorable_steps: .* does not fit": lambda one: one["run"].update(restorable_steps=[-1]),
    "run.restorable_tiers: .* does not fit": lambda one: one["run"].update(restorable_tiers=[{"tier": "disk"}]),
    "run.total_steps: 'True' does not fit": lambda one: one["run"].update(total_steps=True),
    r"segments\[1\].reason: 'bored' does not fit": lambda one: one["segments"][1].update(reason="bored"),
    r"segments\[1\].fork_step: .* does not fit": lambda one: one["segments"][1].update(fork_step=2**53),
    r"events\[0\].details: 'rest' is missing in a probe": lambda one: one.update(events=[EVENT | {"kind": "probe"}]),
    r"events\[0\].kind: .* does not fit": lambda one: one.update(events=[EVENT | {"kind": "k" * 65}]),
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


def test_a_description_that_is_no_json_is_one_sentence(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    path = tmp_path / "bad.parquet"
    for sentence, text in {
        "nested too deeply": "[" * 100_000,
        "nested too deep": '{"a":' * 100_000 + "1" + "}" * 100_000,
        "Expecting property name": "{",
        "cannot be read: 'utf-8' codec": b"\xff\xfe{}",
        "cannot be read: Exceeds the limit": "1" + "0" * 5000,
        "has format 'None'": "[]",
    }.items():
        pyarrow.parquet.write_table(pa.table({"step": [1]}).replace_schema_metadata({export.KEY: text}), path)
        refused(sqlite_engine, path, sentence)


def test_a_description_of_any_depth_is_refused_with_a_sentence() -> None:
    """Python reads JSON somewhat deeper than it can show it."""
    head, tail = '{"format": 1, "run": {"config": ', "}}"
    for depth in range(500, 1100, 3):
        with pytest.raises(BadRecord):
            record.read((head + '{"a":' * depth + "1" + "}" * depth + tail).encode())


def test_numbers_in_json_that_are_not_finite_are_imported_as_the_protocol_writes_them(
    engine: sa.Engine, tmp_path: Path
) -> None:
    """PostgreSQL refuses a bare NaN in JSON; SQLite kept it, and no answer could be made of it."""
    with writing(engine) as session:
        run = add_forked_run(session, [(0, {"loss": [1.0] * 4})], {})
    path = write(engine, run.id, tmp_path / "r.parquet")

    def spoil(one: Any) -> None:
        one["run"]["config"] = {"a": math.nan, "b": [-math.inf]}
        one["incidents"][0]["details"] = {"peak_value": math.inf}

    write_with_bad_description(pyarrow.parquet.read_table(path), path, spoil)
    with writing(engine) as session:
        copy, _ = imports.import_file(session, path=path, now=NOW, run_id="copy")
        assert copy.config == {"a": "NaN", "b": ["-Infinity"]}
        assert queries.incidents(session, run=copy)[0].details == {"peak_value": "Infinity"}


def plant_an_order(described: dict[str, Any]) -> None:
    """What an edited file may say: a rollback that somebody has approved."""
    order = dict.fromkeys(record._names(Order)) | {"id": 9, "intervention": 9, "kind": "rollback", "state": "open"}
    order |= {"rewind_to": 0, "reason": "r", "approved_by": "ada", "key": "k" * 16, "created_at": NOW}
    row = dict.fromkeys(record._names(Intervention)) | {"number": 9, "kind": "rollback", "state": "ordered"}
    row |= {"attempt": 1, "rewind_to": 0, "details": {}, "created_at": NOW, "changed_at": NOW}
    described["orders"].append(order)
    described["interventions"].append(row)
    active = {"number": 9, "kind": "rollback", "state": "ordered", "rewind_to": 0}
    described["watch"] = {"state": {"version": 3, "interventions": {"active": active}}, "segment": 0, "seen_step": 3}


def test_no_trainer_carries_out_an_order_of_an_imported_file(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    path = write(sqlite_engine, small_run(sqlite_engine), tmp_path / "r1.parquet")
    write_with_bad_description(pyarrow.parquet.read_table(path), path, plant_an_order)
    with writing(sqlite_engine) as session:
        copy, _ = imports.import_file(session, path=path, now=NOW, run_id="copy")
        assert queries.orders(session, run=copy, open_only=True) == []
        planted = queries.orders(session, run=copy)[-1]
        assert (planted.state, planted.approved_by) == ("failed", None)
        assert planted.key != "k" * 16
        assert queries.interventions(session, run=copy)[-1].state == "withdrawn"
        assert queries.detection_state(session, run=copy) is None


def plant_an_approval(described: dict[str, Any]) -> None:
    """What an edited file may say of an order that was carried out, and of a note."""
    plant_an_order(described)
    described["orders"][0] |= {"state": "applied", "approved_by": "ada" * 106}
    described["interventions"][0] |= {"state": "verified"}
    described["watch"] = None
    described["step_notes"].append({"step": 1, "text": "all is well", "author": "ada", "created_at": NOW})


def test_nobody_in_this_store_is_named_by_an_imported_file_without_saying_so(
    sqlite_engine: sa.Engine, tmp_path: Path
) -> None:
    path = write(sqlite_engine, small_run(sqlite_engine), tmp_path / "r1.parquet")
    write_with_bad_description(pyarrow.parquet.read_table(path), path, plant_an_approval)
    for run_id in ("copy", "again"):  # a copy of the copy says it once
        with writing(sqlite_engine) as session:
            copy, _ = imports.import_file(session, path=path, now=NOW, run_id=run_id)
            approver = queries.orders(session, run=copy)[0].approved_by
            assert approver is not None
            assert approver.startswith("adaada")
            assert approver.endswith(" (as an imported file says)")
            assert len(approver) <= MAX_AUTHOR
            authors = {note.author for note in step_notes.step_notes(session, run=copy)}
            assert {author.count("(as an imported file says)") for author in authors} == {1}
        path = write(sqlite_engine, run_id, tmp_path / "copy.parquet")


def test_the_first_run_of_a_partition_is_imported_too(engine: sa.Engine, tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    path.write_text("step,loss\n" + "".join(f"{step},1.5\n" for step in range(300)))
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:
            connection.exec_driver_sql("SELECT setval(pg_get_serial_sequence('runs', 'pk'), 99)")
    with writing(engine) as session:
        assert imports.import_file(session, path=path, now=NOW)[1] == 300
