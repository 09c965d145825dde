"""A file comes back as the run that it was, never over another one, and a bad file is one sentence."""

import csv
import json
import math
import random
import subprocess
import sys
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
from db.files import imports, record
from db.models import Run, Step, StoredBlock
from db.runs import overview
from db.runs.filters import RunFilter
from db.store.engine import reading, writing
from lossguard.vocabulary.run_search import parse
from tests.db.files.exported import add_forked_run, all_of, refused, small_run, values_of, write
from tests.db.files.hostile import write_run, write_run_with_a_bomb
from tests.db.seed import NOW, add_run, add_segment, add_steps, ids_of_runs

RULES = settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
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
    sqlite_engine: sa.Engine, tmp_path: Path, parts: list[tuple[int, dict[str, Any]]], details: dict[str, Any]
) -> None:
    with writing(sqlite_engine) as session:
        run = add_forked_run(session, parts, details)
    path = write(sqlite_engine, run.id, tmp_path / "run.parquet")
    with writing(sqlite_engine) as session:
        copy, count = imports.import_file(session, path=path, now=NOW, run_id=uuid.uuid4().hex)
        assert count == 4 * len(parts)
        copied = all_of(session, copy)
        for note in copied["step_notes"]:  # nobody here knows who wrote it
            assert note["author"].endswith(record.AS_IMPORTED)
            note["author"] = note["author"].removesuffix(record.AS_IMPORTED)
        assert copied == all_of(session, session.merge(run))


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


def test_a_project_beside_a_file_that_names_its_own_is_refused(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    path = write(sqlite_engine, small_run(sqlite_engine), tmp_path / "r1.parquet")
    with pytest.raises(imports.BadFile, match="names the project of its run"), writing(sqlite_engine) as session:
        imports.import_file(session, path=path, now=NOW, run_id="copy", project="other")


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


def test_an_imported_run_is_found_by_the_newest_values_of_its_metrics(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    path.write_text("step,loss,custom\n0,9.5,1\n7,2.25,\n8,NaN,3\n")
    with writing(sqlite_engine) as session:
        run, _ = imports.import_file(session, path=path, now=NOW, run_id="r1", project="p")
        standing = overview.standings(session, runs=[run])[run.pk]
        assert (standing.step, standing.metrics["loss"]) == (8, "NaN")
        for text, found in (("loss=nan steps=9 custom=3", ["r1"]), ("loss<9", [])):
            assert ids_of_runs(session, RunFilter(search=parse(text))) == found


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
    "line 3: step does not rise above the one before it": "step,loss\n5,1\n5,2\n",
    "line 3: loss: 'high' is not a number": "step,loss\n0,1\n1,high\n",
    "line 5: loss: 'low' is not a number": "step,loss\n\n0,1\n\n1,low\n",
    "line 2: loss: '0x10' is not a number": "step,loss\n0,0x10\n",
    "line 2: step: '1.5' is not a whole number": "step,loss\n1.5,1\n",
    "line 2: step: '99999999999999999999' is not a whole": "step,loss\n99999999999999999999,1\n",
    "line 3 has 3 cells, but the header names 2 columns": "step,loss\n0,1\n1,2,3\n",
    "line 3 has 1 cells, but the header names 2 columns": "step,loss\n0,1\n1\n",
    "line 2: step is missing or not the number of a step": "step,loss\n-4,1\n",
    "line 4: step is missing or not the number of a step": f"step,loss\n0,1\n\n{2**53},1\n",
    "line 3: step is missing": "step,loss\n0,1\n,1\n",
    "line 2: time is missing or not a time in unix seconds": "step,time,loss\n0,NaN,1\n",
    "line 3: time is missing or not a time in unix seconds": "step,time,loss\n0,1e9,1\n1,1e300,1\n",
    "line 2: tokens is beyond any count": "step,tokens\n0,1e300\n",
    "segment 7000 skips 7000 numbers": "segment,step,loss\n7000,0,1\n",
    "line 2: segment is missing or not the number": "segment,step,loss\n-1,0,1\n",
    "it has 1,001 metrics, but a run may have 1,000": "step," + ",".join(f"m{at}" for at in range(1001)) + "\n",
    "Empty CSV|no column": "",
    "line 1: field larger than field limit": "step," + "x" * 200_000 + "\n",
    "line 1 is longer than 1,048,576 characters": "step," + "x," * 600_000 + "\n",
    "line 2 is longer than 1,048,576 characters": "step,loss\n0," + " " * 3 * 2**20 + "1\n",
    "line 3: field larger than field limit": 'step,loss\n0,1\n1,"2\n' + "3,4\n" * 50_000,
}


def test_a_bad_csv_is_one_sentence_and_nothing_is_imported(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    for sentence, text in BAD_CSVS.items():
        path.write_text(text, encoding="utf-8")
        refused(sqlite_engine, path, sentence)


def test_what_is_imported_before_the_bad_line_does_not_stay(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    rows = "".join(f"{step},1.{'0' * 400}\n" for step in range(4000))  # more than Arrow reads at once
    path.write_text(f"step,loss\n{rows}x,1\n", encoding="utf-8")
    refused(sqlite_engine, path, "line 4002: step: 'x' is not a whole number")
    with reading(sqlite_engine) as session:
        for table in (Step, StoredBlock):
            assert session.scalar(sa.select(sa.func.count()).select_from(table)) == 0


def test_a_metric_that_is_called_like_a_formula_is_no_formula_in_a_csv(
    sqlite_engine: sa.Engine, tmp_path: Path
) -> None:
    """A spreadsheet would run it. What was reported below, -1.5 and -inf, stays a number."""
    names = ['=HYPERLINK("http://x","y")', "+1", "-loss", "@SUM(A1)", "'=1", "'quoted'", " =1", "a=b"]
    with writing(sqlite_engine) as session:
        run = add_run(session)
        columns: dict[str, Any] = {name: [-1.5, -math.inf] for name in names}
        add_steps(session, run, add_segment(session, run, "a"), range(2), **columns)
    path = write(sqlite_engine, "r1", tmp_path / "copy.csv")
    header, first, second = csv.reader(path.read_text(encoding="utf-8").splitlines())
    assert [cell for cell in header if cell.lstrip()[:1] in tuple("=+-@")] == []
    assert (set(first[4:]), set(second[4:])) == ({"-1.5"}, {"-inf"})
    with writing(sqlite_engine) as session:
        copy, _ = imports.import_file(session, path=path, now=NOW)
        assert queries.metric_names(session, run=copy) == sorted(names)
        assert [values_of(session, copy, name)[1][3] for name in names] == [-math.inf] * len(names)  # type: ignore[index]


def test_a_parquet_file_without_a_run_is_refused(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    pyarrow.parquet.write_table(pa.table({"step": np.arange(3)}), path)
    refused(sqlite_engine, path, "does not hold a run")
    path.write_bytes(path.read_bytes()[:-20])
    refused(sqlite_engine, path, r"other\.parquet: .")
    refused(sqlite_engine, tmp_path / "nowhere.parquet", "there is no file")


def test_a_file_that_would_take_much_memory_is_refused_before_it_is_read(
    sqlite_engine: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_run(tmp_path / "wide.parquet", 3, 3)
    with writing(sqlite_engine) as session:
        with pytest.raises(imports.BadFile, match="it has 3 metrics, but a run may have 2 "):
            imports.import_file(session, path=path, now=NOW, max_metrics=2)
        assert queries.runs(session) == []
        assert imports.import_file(session, path=path, now=NOW, max_metrics=3)[1] == 3
        session.rollback()
    monkeypatch.setattr(imports, "MAX_GROUP_BYTES", 500_000)
    path = write_run(tmp_path / "long.parquet", 3, 100_000, use_dictionary=False)
    refused(sqlite_engine, path, "row group 0 has .* bytes, but 500,000 is the most that is read")


@pytest.mark.slow
def test_a_small_file_takes_little_memory_whatever_it_holds(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    """3,000 columns in 1 MB took 3 GiB. Here is the most that is allowed, and a page that says less than it is."""
    wide = write_run(tmp_path / "wide.parquet", 1000, 1000)
    bomb = write_run_with_a_bomb(tmp_path / "bomb.parquet", 2**30)
    for path, code, sentence in ((wide, 0, "imported wide"), (bomb, 2, f"db: {bomb}: it asks for more memory than")):
        command = ["import", str(path), "--as", path.stem, "--url", str(sqlite_engine.url)]
        done = subprocess.run([sys.executable, "-c", MEASURED, *command], capture_output=True, text=True, check=False)
        assert (done.returncode, sentence in done.stdout + done.stderr) == (code, True), done.stderr
        peak = int(done.stdout.splitlines()[-1]) / 1024
        assert peak < 600, f"{path.name}: {peak:.0f} MiB"


MEASURED = """
import atexit, re
from db.cli.app import app
status = lambda: open("/proc/self/status").read()
atexit.register(lambda: print(re.search(r"VmHWM: *(.*) kB", status().replace(chr(9), " "))[1]))
app()
"""


def test_a_parquet_file_of_other_columns_is_one_sentence(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    path = write_run(tmp_path / "r.parquet", 2, 3)
    table = pyarrow.parquet.read_table(path)
    wrong: dict[str, tuple[str, pa.Array]] = {
        "the column 'm0' holds string, not numbers": ("m0", pa.array(["a", "b", "c"])),
        "the column 'm1' holds list<.*>, not numbers": ("m1", pa.array([[1.0]] * 3)),
        "the column 'step' holds double, not whole numbers": ("step", pa.array([0.0, 1.0, 2.0])),
        "the column 'step' holds timestamp.*, not whole numbers": ("step", pa.array([0, 1, 2], pa.timestamp("s"))),
        "row 3: step is missing or not the number of a step": ("step", pa.array([0, 1, 2**63], pa.uint64())),
        "row 2: step is missing or not the number of a step": ("step", pa.array([0, None, 2])),
        "row 1: step is missing or not the number of a step": ("step", pa.array([2**53, 2**53 + 1, 2**53 + 2])),
        "row 2: time is missing or not a time in unix seconds": ("time", pa.array([0.0, 1e300, 1.0])),
        "row 2: there is no segment 5 in the description": ("segment", pa.array([0, 5, 5], pa.int32())),
    }
    for sentence, (name, column) in wrong.items():
        changed = table.set_column(table.schema.names.index(name), name, column)
        pyarrow.parquet.write_table(changed.replace_schema_metadata(table.schema.metadata), path)
        refused(sqlite_engine, path, sentence)
    pyarrow.parquet.write_table(table.append_column("m0", table["m0"]), path)
    refused(sqlite_engine, path, "two columns are 'm0'")
    pyarrow.parquet.write_table(pa.concat_tables([table, table]), path)
    refused(sqlite_engine, path, "it has 6 rows, but its description counts 3 steps")


def test_a_damaged_page_is_refused_by_its_checksum(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    path = write(sqlite_engine, small_run(sqlite_engine), tmp_path / "run.parquet")
    last = pyarrow.parquet.read_metadata(path).row_group(0).column(4)
    content = bytearray(path.read_bytes())
    content[last.data_page_offset + last.total_compressed_size - 1] ^= 1
    path.write_bytes(content)
    with writing(sqlite_engine) as session:
        session.execute(sa.delete(Run))
    refused(sqlite_engine, path, "the file is damaged .*CRC")


@pytest.mark.slow
def test_a_damaged_file_is_a_run_or_one_sentence(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    """Changed bytes and cut ends: nothing but BadFile is raised, and a file that is cut is always refused."""
    whole = write_run(tmp_path / "whole.parquet", 3, 40).read_bytes()
    path, chance = tmp_path / "damaged.parquet", random.Random(0)
    for attempt in range(250):
        damaged = bytearray(whole)
        if attempt % 5 == 0:
            del damaged[chance.randrange(4, len(damaged)) :]
        else:
            for _ in range(chance.choice((1, 3, 30))):
                damaged[chance.randrange(4, len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        sentence = None
        try:
            with writing(sqlite_engine) as session:
                imports.import_file(session, path=path, now=NOW, run_id=f"r{attempt}")
        except imports.BadFile as error:
            sentence = str(error)
        assert len(damaged) == len(whole) if sentence is None else "\n" not in sentence


def test_what_a_pre_release_exported_can_be_imported(sqlite_engine: sa.Engine) -> None:
    """The file was written by the last version before the baseline, from a store at schema 0027."""
    with writing(sqlite_engine) as session:
        run, count = imports.import_file(session, path=Path(__file__).with_name("pre_release.parquet"), now=NOW)
    with reading(sqlite_engine) as session:
        assert (run.id, count, len(queries.incidents(session, run=run))) == ("r1", 2100, 1)
        assert len(queries.segments(session, run=run)) == 2
        assert frames.steps(session, run=run)["loss"].tolist() == [float(step) for step in range(1800)]
