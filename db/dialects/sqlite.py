"""SQLite: one file in WAL mode, for one machine.

It is opened so that a commit is on the disk before it is acknowledged (synchronous=FULL), and so that a writing
transaction takes its lock when it begins (BEGIN IMMEDIATE): two collectors wait for each other instead of failing in
the middle.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import InstrumentedAttribute

from db.dialects.base import WRITES, BadDatabaseUrl, CannotBackUp, Dialect, QueryTooSlow

LOWER = "lossguard_lower"
"""A function that `_prepare` adds: SQLite's own changes ASCII letters only."""
BUSY_SECONDS = 30
"""Seconds for which a writer waits for another one."""
INCREMENTAL = 2
"""Value of SQLite's auto_vacuum: free pages are returned when they are asked for, a few at a time."""
VACUUM_PAGES = 1_000
"""Pages that one transaction returns, while reports wait."""
INSTRUCTIONS = 100_000
"""Instructions of SQLite's machine between two looks at the clock, in a query with a time limit."""
PRAGMAS = ("synchronous=FULL", "foreign_keys=ON", "cache_size=-32000")


READABLE = partial(str, encoding="utf-8", errors="replace")
"""Makes text of what the file holds: a damaged one must not make every query of its table fail."""


class SQLite(Dialect):
    """A file. A writer locks the whole store from its BEGIN, and every transaction reads one snapshot."""

    name = "sqlite"
    url_example = "sqlite:///path/to/file.db"
    is_file = True
    parameter = "?"
    clock = "((julianday('now') - 2440587.5) * 86400.0)"

    def create_engine(self, url: sa.URL, **options: Any) -> sa.Engine:
        _make_folder(url.database)
        arguments = {"timeout": BUSY_SECONDS, "check_same_thread": False}
        engine = sa.create_engine(url.set(drivername="sqlite"), hide_parameters=True, connect_args=arguments, **options)
        sa.event.listen(engine, "connect", _prepare)
        sa.event.listen(engine, "begin", _begin)
        return engine

    def store_file(self, url: sa.URL) -> Path | None:
        return None if url.database in (None, "", ":memory:") else Path(url.database)

    def lower(self, text: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
        return getattr(sa.func, LOWER)(text, type_=sa.String)  # type: ignore[no-any-return]

    def contains(self, text: sa.ColumnElement[str], part: str) -> sa.ColumnElement[bool]:
        return sa.func.instr(self.lower(text), part) > 0

    def member(self, column: InstrumentedAttribute[Any], key: str) -> sa.ColumnElement[str | None]:
        """A damaged object has no members."""
        valid = sa.case((sa.func.json_valid(column), column))
        if '"' not in key and "\\" not in key:
            return sa.func.json_extract(valid, f'$."{key}"', type_=sa.Text())
        each = sa.func.json_each(valid).table_valued("key", "value").alias()  # no path can name the key
        return sa.select(sa.type_coerce(each.c.value, sa.Text)).where(each.c.key == key).scalar_subquery()

    def number(self, column: InstrumentedAttribute[Any], key: str) -> sa.ColumnElement[float | None]:
        found = sa.type_coerce(self.member(column, key), sa.Float)
        return sa.case((sa.func.typeof(found).in_(("integer", "real")), found))

    @contextmanager
    def changing_schema(self, engine: sa.Engine) -> Iterator[sa.Connection]:
        """Make all changes in one transaction: its BEGIN locks the whole store."""
        with engine.execution_options(**WRITES).begin() as connection:
            yield connection

    @contextmanager
    def time_limit(self, connection: sa.Connection, seconds: float) -> Iterator[None]:
        driver: Any = connection.connection.dbapi_connection
        latest = time.monotonic() + seconds
        driver.set_progress_handler(lambda: time.monotonic() > latest, INSTRUCTIONS)
        try:
            yield
        except sa.exc.OperationalError as error:
            if getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
                raise QueryTooSlow from error
            raise
        finally:
            driver.set_progress_handler(None, 0)

    def num_bytes(self, engine: sa.Engine) -> int:
        with _driver(engine) as connection:
            return _pragma(connection, "page_count") * _pragma(connection, "page_size")

    def vacuum(self, engine: sa.Engine) -> None:
        """Shrink the file in small transactions; a file without auto_vacuum keeps its free pages."""
        with _driver(engine) as connection:
            can_shrink = _pragma(connection, "auto_vacuum") == INCREMENTAL
            while can_shrink and _pragma(connection, "freelist_count"):
                connection.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")  # `execute` returns one page
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def back_up(self, url: sa.URL, target: Path) -> None:
        """The copy is one read transaction, so no writer waits for it. `target` exists only once it is complete."""
        source = self.store_file(url)
        assert source is not None, "there is nothing to back up in memory"
        partial = target.with_name(target.name + ".partial")
        try:
            partial.unlink(missing_ok=True)
            _copy(source, partial)
            os.replace(partial, target)
        except (OSError, sqlite3.Error) as error:
            partial.unlink(missing_ok=True)
            raise CannotBackUp(f"cannot write {source} to {target}: {error}") from None


def _make_folder(database: str | None) -> None:
    if not database or database == ":memory:":
        return
    try:
        Path(database).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadDatabaseUrl(f"cannot make the folder of the database {database}: {error.strerror}") from error


def _prepare(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver's own BEGIN comes too late to lock anything; see _begin
    connection.text_factory = READABLE
    connection.create_function(LOWER, 1, _lower, deterministic=True)
    cursor = connection.cursor()
    if cursor.execute("PRAGMA auto_vacuum").fetchone() != (INCREMENTAL,):  # else this would wait for another writer
        cursor.execute(f"PRAGMA auto_vacuum={INCREMENTAL}")  # of a new file
    _write_ahead(cursor)
    for pragma in PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _lower(text: object) -> object:
    return text.lower() if isinstance(text, str) else text


def _write_ahead(cursor: sqlite3.Cursor) -> None:
    """SQLite changes to WAL without waiting, whatever its timeout: processes that start at once retry here."""
    latest = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > latest:
                raise
        time.sleep(0.01)


def _begin(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("lossguard_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def _driver(engine: sa.Engine) -> Iterator[sqlite3.Connection]:
    """A connection of the driver, for what SQLite does not do in a transaction."""
    with closing(engine.raw_connection()) as connection:
        driver = connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        yield driver


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    (value,) = connection.execute(f"PRAGMA {name}").fetchone()
    return int(value)


def _copy(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as store, closing(sqlite3.connect(target)) as copy:
        store.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
        (result,) = copy.execute("PRAGMA quick_check").fetchone()
    if result != "ok":
        raise sqlite3.DatabaseError(f"the copy is damaged: {result}")
    with target.open("rb") as file:
        os.fsync(file.fileno())
