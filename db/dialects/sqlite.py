"""SQLite: one file in WAL mode, for one machine; conditions on JSON by its table-valued functions.

It is opened so that a commit is on the disk before it is acknowledged (synchronous=FULL), and so that a writing
transaction takes its lock when it begins (BEGIN IMMEDIATE): two collectors wait for each other instead of failing in
the middle.
"""

import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from db.dialects.base import (
    WRITES,
    BadDatabaseUrl,
    CannotBackUp,
    Column,
    Dialect,
    JsonConditions,
    QueryTooSlow,
    Test,
    ValueTest,
    key_paths,
)
from lossguard.vocabulary.run_search import Operator

# Conditions on JSON

LOWER = "lossguard_lower"
"""A function that `_prepare` adds: SQLite's own changes ASCII letters only."""
_COMPARED = {Operator.LESS: "<", Operator.AT_MOST: "<=", Operator.GREATER: ">", Operator.AT_LEAST: ">="}
_NUMBERS = ("integer", "real")
_NAMES = {True: "true", False: "false", None: "null"}


class SQLiteJson(JsonConditions):
    def member(self, column: Column, key: str, test: ValueTest) -> Test:
        if '"' not in key:
            return _known(_value_at(column, (key,), test))
        each = sa.func.json_each(_valid(column)).table_valued("key", "type", "atom").alias()  # no path can name it
        return _known(sa.exists().select_from(each).where(each.c.key == key, _passes(each.c, test)))

    def element(self, column: Column, test: ValueTest, *, of: str | None = None) -> Test:
        path = _path(()) if of is None else _path((of,))
        return _known(sa.and_(sa.func.json_type(_valid(column), path) == "array", _any(column, path, test)))

    def setting(self, column: Column, name: str, test: ValueTest | None = None) -> Test:
        paths = key_paths(name)
        is_exact = sa.or_(*(sa.func.json_type(_valid(column), _path(keys)).is_not(None) for keys in paths))
        ends = _ends_with(column, name, test)
        at_path = is_exact if test is None else sa.or_(*(_value_at(column, keys, test) for keys in paths))
        found = sa.case((is_exact, at_path), else_=ends)
        return sa.case((_may_have(column, name), _known(found)), else_=sa.false())

    def text(self, column: Column, key: str) -> sa.ColumnElement[str | None]:
        found = sa.func.json_extract(_valid(column), _path((key,)), type_=sa.Text())
        return sa.case((sa.func.json_type(_valid(column), _path((key,))) == "text", found))

    def member_text(self, column: Column, key: str) -> sa.ColumnElement[str | None]:
        found = sa.func.json_extract(_valid(column), _path((key,)))
        return sa.case((sa.func.json_type(_valid(column), _path((key,))).in_(("array", "object")), found))


def _valid(column: Column) -> Column:
    """An old row that is no JSON must not fail the whole query."""
    return sa.case((sa.func.json_valid(column), column))


def _known(test: Test) -> Test:
    return sa.func.coalesce(test, sa.false())


def _may_have(column: Column, name: str) -> Test:
    """Quick to see: whether the text has such a key at all."""
    key = name.rpartition(".")[2]
    return sa.func.instr(column, f'{key}"') > 0 if key.isascii() and json.dumps(key) == f'"{key}"' else sa.true()


def _path(keys: tuple[str, ...]) -> str:
    return "$" + "".join(f'."{key}"' for key in keys)


def _value_at(column: Column, keys: tuple[str, ...], test: ValueTest) -> Test:
    return _any(column, _path(keys), test)


def _any(column: Column, path: str, test: ValueTest) -> Test:
    """Return json_each of the column: the elements of a list, or a plain value itself."""
    each = sa.func.json_each(_valid(column), path).table_valued("type", "atom").alias()
    return sa.exists().select_from(each).where(_passes(each.c, test))


def _ends_with(column: Column, name: str, test: ValueTest | None) -> Test:
    """Over all values; the path of an element is that of its list. A path is written $.optimizer.lr or $."a b".lr."""
    each = sa.func.json_tree(_valid(column)).table_valued("key", "type", "atom", "path", "fullkey").alias()
    is_element, last = sa.func.typeof(each.c.key) == "integer", name.rpartition(".")[2]
    plain = sa.func.replace(sa.case((is_element, each.c.path), else_=each.c.fullkey), '"', "")
    # Keys may be stored with escapes, and are shown so in paths.
    endings = {f".{name}", "." + json.dumps(name)[1:-1]}
    has_path = sa.or_(*(sa.func.substr(plain, -len(ending)) == ending for ending in sorted(endings)))
    # To compare keys costs a third of comparing paths.
    has_key = sa.or_(is_element, each.c.key == last, sa.func.substr(each.c.key, -len(last) - 1) == f".{last}")
    found = sa.case((has_key, has_path), else_=sa.false())
    conditions = [found] if test is None else [found, _passes(each.c, test)]
    return sa.exists().select_from(each).where(*conditions)


def _passes(value: Any, test: ValueTest) -> Test:
    """`value`: the columns of json_each or json_tree."""
    is_number, is_text, atom = value.type.in_(_NUMBERS), value.type == "text", value.atom
    tests: list[Test] = []
    if test.order is not None:
        operator, limit = test.order
        tests.append(sa.and_(is_number, sa.type_coerce(atom, sa.Float).op(_COMPARED[operator])(limit)))
    if test.number is not None:
        tests.append(sa.and_(is_number, atom == test.number))
    if test.text is not None:
        lower = getattr(sa.func, LOWER)(atom)
        tests.append(sa.and_(is_text, lower == test.text if test.is_whole else sa.func.instr(lower, test.text) > 0))
    if test.exactly:
        tests.append(sa.and_(is_text, atom.in_(sorted(test.exactly))))
    if test.constants:
        tests.append(value.type.in_([_NAMES[one] for one in test.constants]))
    return sa.or_(sa.false(), *tests)


# The database

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
    json = SQLiteJson()
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

    @contextmanager
    def changing_schema(self, engine: sa.Engine) -> Iterator[sa.Connection]:
        """One transaction for all changes: its BEGIN locks the whole store."""
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
        """The file shrinks in small transactions."""
        with _driver(engine) as connection:
            while _pragma(connection, "freelist_count"):
                connection.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()
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
