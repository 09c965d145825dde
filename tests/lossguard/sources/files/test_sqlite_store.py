"""A SQLite file brings a schema, which is code: only what its tables hold is read, with limits."""

import os
import sqlite3
from itertools import chain
from pathlib import Path

import pytest

from lossguard.sources import formats
from lossguard.sources.files import sqlite_store
from lossguard.sources.files.sqlite_store import opened
from lossguard.sources.source_run import BadSource
from tests.lossguard.sources.readers.hostile import CONFIGS, METRICS, ROW, sqlite_file

ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)"
CONFIGS_VIEW = f"CREATE VIEW configs AS {ENDLESS} SELECT x AS run_name, hex(zeroblob(900000000)) AS config FROM c"
METRICS_VIEW = (
    f"CREATE VIEW metrics AS {ENDLESS} "
    "SELECT x AS id, 1 AS timestamp, 'w' AS run_name, x AS step, '{\"loss\": 1}' AS metrics FROM c"
)


@pytest.mark.parametrize(
    "statements",
    [
        (METRICS_VIEW, CONFIGS),
        (METRICS, CONFIGS_VIEW, ROW.format(0)),
        ("CREATE VIRTUAL TABLE metrics USING rtree(id, timestamp, run_name, step, metrics)", CONFIGS),
        (METRICS.replace("metrics TEXT", "metrics TEXT AS (hex(zeroblob(9)))"), CONFIGS),
        (METRICS.replace(")", ", more TEXT AS (hex(zeroblob(9))) STORED)"), CONFIGS),
    ],
    ids=["a view", "a view beside", "a virtual table", "a computed column", "another computed column"],
)
def test_what_computes_its_rows_is_no_table(tmp_path: Path, statements: tuple[str, ...]) -> None:
    sqlite_file(tmp_path / "gpt.db", *statements)
    with pytest.raises(BadSource, match="holds no run"):
        formats.runs_in(tmp_path)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM v",
        "SELECT hex(zeroblob(9))",
        "DELETE FROM metrics",
        "ATTACH ':memory:' AS other",
        "PRAGMA trusted_schema = ON",
        "CREATE TABLE t (a)",
        "SELECT load_extension('x')",
    ],
)
def test_a_connection_asks_tables_and_nothing_else(tmp_path: Path, query: str) -> None:
    sqlite_file(tmp_path / "gpt.db", METRICS, CONFIGS, ROW.format(0), "CREATE VIEW v AS SELECT * FROM metrics")
    with opened(tmp_path / "gpt.db") as store:
        assert store.execute("SELECT count(*), max(step) FROM metrics").fetchone() == (1, 0)
        with pytest.raises(sqlite3.DatabaseError, match=r"not authorized|prohibited"):
            store.execute(query).fetchall()


def test_a_value_that_is_too_long_is_one_sentence(tmp_path: Path) -> None:
    sqlite_file(tmp_path / "gpt.db", METRICS, CONFIGS, "INSERT INTO metrics VALUES (1, 1, 'w', 1, zeroblob(5000000))")
    (run,) = formats.runs_in(tmp_path)
    with pytest.raises(BadSource, match=r"cannot be read as a SQLite file \(string or blob too big"):
        list(run.rows())


def test_all_queries_of_a_file_together_are_bounded_by_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_store, "MAX_OPERATIONS", 1_000_000)
    rows = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 1000) INSERT INTO metrics "
    sqlite_file(tmp_path / "gpt.db", METRICS, CONFIGS, rows + "SELECT x, 1, 'run ' || x, 1, '{\"loss\": 1}' FROM c")
    runs = formats.runs_in(tmp_path)
    assert len(runs) == 1000
    with pytest.raises(BadSource, match="takes too long to read for its size"):
        list(chain.from_iterable(run.rows() for run in runs))


@pytest.mark.parametrize("end", ["-wal", "-journal", "-shm"])
def test_the_files_beside_it_are_files_of_its_folder(tmp_path: Path, end: str) -> None:
    path, beside = tmp_path / "runs" / "gpt.db", tmp_path / "runs" / f"gpt.db{end}"
    path.parent.mkdir()
    sqlite_file(path)
    (tmp_path / "elsewhere").touch()
    for is_pipe in (True, False):
        os.mkfifo(beside) if is_pipe else beside.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(BadSource, match=f"gpt.db{end} is no file of SQLite"):
            formats.runs_in(path)
        beside.unlink()
