"""Engines and sessions: SQLite (WAL) embedded, PostgreSQL for teams.

SQLite is opened so that a commit is on the disk before it is acknowledged (synchronous=FULL) and so that a writing
transaction takes its lock at its beginning (BEGIN IMMEDIATE): two collectors wait for each other instead of failing
in the middle.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

DEFAULT_URL = "sqlite:///.lossguard/lossguard.db"
CONNECT_SECONDS, BUSY_SECONDS = 10, 30
"""How long a PostgreSQL server may take to answer at all, and how long SQLite waits for another writer."""
WRITES = {"lossguard_writes": True}


class BadDatabaseUrl(ValueError):
    """The database URL cannot be used; the message says why and how to mend it."""


class NoStore(BadDatabaseUrl):
    """There is no store at the URL."""


def create_engine(url: str = DEFAULT_URL, **options: Any) -> sa.Engine:
    """An engine for `url`; its errors do not tell the values of a statement.

    Raises BadDatabaseUrl when that is no SQLite or PostgreSQL URL, or has no usable folder.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() == "postgresql":
        driver = parsed.set(drivername="postgresql+psycopg")
        wait = {"connect_timeout": CONNECT_SECONDS}
        return sa.create_engine(driver, pool_pre_ping=True, hide_parameters=True, connect_args=wait, **options)
    if parsed.get_backend_name() != "sqlite":
        raise BadDatabaseUrl(f"{parsed.get_backend_name()} is not supported; use a sqlite:/// or postgresql:// URL")
    _make_folder(parsed.database)
    wait = {"timeout": BUSY_SECONDS, "check_same_thread": False}
    engine = sa.create_engine(parsed.set(drivername="sqlite"), hide_parameters=True, connect_args=wait, **options)
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def parse_url(url: str) -> sa.URL:
    """Raises BadDatabaseUrl when that is no URL of a database."""
    try:
        return make_url(url)
    except (sa.exc.ArgumentError, ValueError):  # the latter for a port that is no number
        raise BadDatabaseUrl(
            f"{shown(url)} is not a database URL; write sqlite:///path/to/file.db or postgresql://user@host/name"
        ) from None


def check_store(url: str) -> None:
    """Raise NoStore where a SQLite file is not there: who only wants to read one would make it by opening it."""
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite" and not os.path.isfile(parsed.database or ""):
        raise NoStore(f"there is no store at {parsed.database or url}")


def shown(url: str) -> str:
    """A database URL as it may be printed: without its password."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except (sa.exc.ArgumentError, ValueError):
        _, at, host = url.rpartition("@")  # nobody can tell where the password of such a text begins
        return repr(f"...{at}{host}" if at else url)


def first_line(error: object) -> str:
    """What a driver says of an error, which may be many lines."""
    return str(error).partition("\n")[0]


def _make_folder(database: str | None) -> None:
    if not database or database == ":memory:":
        return
    try:
        Path(database).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadDatabaseUrl(f"cannot make the folder of the database {database}: {error.strerror}") from error


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver's own BEGIN comes too late to lock anything; see _begin_sqlite
    cursor = connection.cursor()
    _write_ahead(cursor)
    for pragma in ("synchronous=FULL", "foreign_keys=ON", "cache_size=-32000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _write_ahead(cursor: sqlite3.Cursor) -> None:
    """Changing to WAL, SQLite waits for nobody, whatever its timeout: several that start at once take turns here."""
    latest = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > latest:
                raise
        time.sleep(0.01)


def _begin_sqlite(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("lossguard_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def reading(engine: sa.Engine) -> Iterator[Session]:
    """A session for queries: all of them see the moment of the first, so that no two contradict each other."""
    if engine.dialect.name == "postgresql":  # on SQLite it is so in any case
        engine = engine.execution_options(isolation_level="REPEATABLE READ")
    with Session(engine) as session:
        yield session


@contextmanager
def writing(engine: sa.Engine) -> Iterator[Session]:
    """A session whose transaction is committed at the end of the block, or rolled back whole if the block raises."""
    with Session(engine.execution_options(**WRITES), expire_on_commit=False) as session, session.begin():
        yield session
