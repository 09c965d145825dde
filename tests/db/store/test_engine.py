"""Engines of a URL, what differs between databases behind one interface, and sessions whose transactions are whole."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from db import queries
from db.dialects import sqlite
from db.dialects.base import BadDatabaseUrl, Dialect
from db.store.engine import DIALECTS, StoreClock, create_engine, dialect_of, parse_url, reading, writing
from tests.db.seed import add_run


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://me:secret@host/store", "mysql is not supported; use sqlite:///"),
        ("nonsense", "is not a database URL; write sqlite:///"),
        ("postgresql://me:secret@host:port/store", "'...@host:port/store' is not a database URL"),
    ],
)
def test_an_unusable_url_is_refused_without_its_password(url: str, words: str) -> None:
    with pytest.raises(BadDatabaseUrl, match=re.escape(words)) as error:
        create_engine(url)
    assert "secret" not in str(error.value)


def test_a_block_that_raises_writes_nothing(engine: sa.Engine) -> None:
    try:
        with writing(engine) as session:
            add_run(session)
            raise RuntimeError
    except RuntimeError:
        pass
    with reading(engine) as session:
        assert queries.runs(session) == []


def test_a_new_connection_of_a_reader_does_not_wait_for_a_writer(
    sqlite_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.1)
    with closing(sqlite3.connect(str(sqlite_engine.url.database), isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        another = create_engine(str(sqlite_engine.url))
        with reading(another) as session:
            assert queries.runs(session) == []
        another.dispose()


def test_an_engine_belongs_to_the_dialect_of_its_url(engine: sa.Engine) -> None:
    dialect, _ = parse_url(engine.url.render_as_string(hide_password=False))
    assert dialect_of(engine) is dialect
    with engine.connect() as connection:
        assert dialect_of(connection) is dialect


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=list(DIALECTS))
def test_the_example_of_a_url_is_one_of_its_dialect(dialect: Dialect) -> None:
    assert parse_url(dialect.url_example)[0] is dialect


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("sqlite:///some/store.db", Path("some/store.db")),
        ("sqlite://", None),
        ("sqlite:///:memory:", None),
        ("postgresql://me@host/store", None),
    ],
)
def test_the_file_of_a_store_is_known_before_it_exists(url: str, file: Path | None) -> None:
    dialect, parsed = parse_url(url)
    assert dialect.store_file(parsed) == file


def test_a_clock_that_is_wrong_is_corrected_by_the_database_and_a_right_one_is_left_alone() -> None:
    clock = StoreClock(lambda: 1000.0)
    clock.observe(4600.2, 1000.0)
    assert clock() == 4600.2
    clock.observe(1000.4, 1000.0)
    assert clock() == 1000.0


def test_a_server_that_takes_no_writes_now_is_a_store_that_is_away(engine: sa.Engine) -> None:
    """Such as a standby, or one whose disk is full: not a defect of the collector."""
    with engine.connect() as connection:
        is_postgresql = engine.dialect.name == "postgresql"
        connection.exec_driver_sql("SET TRANSACTION READ ONLY" if is_postgresql else "PRAGMA query_only = ON")
        with pytest.raises(sa.exc.OperationalError):
            connection.exec_driver_sql("DELETE FROM runs")
        connection.invalidate()
