"""Many rows at once, and short queries that run all the time: by the driver, at a tenth of what the ORM costs."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice, repeat
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Session

from db.dialects.base import BINARY, Columns
from db.dialects.base import quoted as quoted
from db.store.engine import dialect_of

CHUNK_ROWS = 2_000
"""Rows that `read_chunks` yields at a time."""
KEYS_PER_QUERY = 500
"""Keys in one IN; databases limit the number of parameters."""
MAX_WAITING_ROWS = 2_000
"""Rows of one table that `insert_soon` lets wait."""
WAITING = "waiting_rows"
"""Key in a session's `info`: the rows given to `insert_soon`, by table and columns."""
CHANGED = "changed_rows"
"""Key in a session's `info`: the rows given to `update_soon`, by identity, by class and attributes."""


def insert(session: Session, table: type[DeclarativeBase], columns: dict[str, Any]) -> None:
    """Insert rows given as columns: lists of equal length, or one value for all rows. JSON is given as text."""
    _insert(session, table.__tablename__, list(columns), _rows(columns))


def insert_soon(session: Session, table: type[DeclarativeBase], columns: dict[str, Any]) -> None:
    """Insert the rows of many calls by one statement before the session's next query or commit.

    Not for a transaction with savepoints, which the waiting rows would ignore.
    """
    _listen(session)
    rows = session.info[WAITING].setdefault((table.__tablename__, tuple(columns)), [])
    rows.extend(_rows(columns))
    if len(rows) >= MAX_WAITING_ROWS:
        _write_waiting(session)


def update_soon(session: Session, row: DeclarativeBase, values: Mapping[str, Any]) -> None:
    """Set these attributes of a stored row, and write all rows of a class that were changed so by one statement: before
    the session's next query or commit.

    The row need not be in the session, and no flush sees the change: that saves most of what the ORM costs.
    Not for a transaction with savepoints either.
    """
    _listen(session)
    vars(row).update(values)
    session.info[CHANGED].setdefault((type(row), tuple(values)), {})[id(row)] = row


Key = TypeVar("Key", int, str)


def key_parts(keys: Iterable[Key]) -> Iterator[Sequence[Key]]:
    """Keys of rows, as many at a time as one query takes."""
    remaining = iter(keys)
    while some := list(islice(remaining, KEYS_PER_QUERY)):
        yield some


def _listen(session: Session) -> None:
    if WAITING in session.info:
        return
    session.info[WAITING], session.info[CHANGED] = {}, {}
    sa.event.listen(session, "do_orm_execute", lambda query: _write_waiting(query.session))
    sa.event.listen(session, "before_commit", _write_waiting)
    sa.event.listen(session, "after_rollback", _forget_waiting)


def _forget_waiting(session: Session) -> None:
    session.info[WAITING].clear()
    session.info[CHANGED].clear()


def _write_waiting(session: Session) -> None:
    waiting, changed = session.info.get(WAITING), session.info.get(CHANGED)
    while waiting:
        (table, names), rows = waiting.popitem()
        _insert(session, table, names, rows)
    while changed:
        (kind, names), objects = changed.popitem()
        _update(session, kind, names, objects.values())


def _update(
    session: Session, kind: type[DeclarativeBase], names: tuple[str, ...], rows: Iterable[DeclarativeBase]
) -> None:
    if session.new:
        session.flush()
    connection = session.connection()
    attributes, keys, changed = _updated_columns(kind, names)
    values = [[vars(row)[name] for name in attributes] for row in rows]
    dialect_of(connection).update(connection, kind.__tablename__, keys, changed, values)


@lru_cache
def _updated_columns(kind: type[DeclarativeBase], names: tuple[str, ...]) -> tuple[list[str], Columns, Columns]:
    """The attributes of a row's key and these, and the columns of both."""
    columns = {attribute.key: attribute.columns[0] for attribute in sa.inspect(kind).column_attrs}
    keys = [name for name, column in columns.items() if column.primary_key]
    of_key, changed = ([(columns[name].name, columns[name].type) for name in some] for some in (keys, names))
    return [*keys, *names], of_key, changed


def _rows(columns: dict[str, Any]) -> list[tuple[Any, ...]]:
    length = next(len(column) for column in columns.values() if isinstance(column, list))
    lists = [column if isinstance(column, list) else repeat(column, length) for column in columns.values()]
    return list(zip(*lists, strict=False))


def _insert(session: Session, table: str, names: Sequence[str], rows: list[tuple[Any, ...]]) -> None:
    if session.new:  # rows that these refer to; changes of other objects wait for the next flush
        session.flush()
    connection = session.connection()
    dialect_of(connection).insert(connection, table, names, rows)


def run(session: Session, statement: str, values: tuple[Any, ...]) -> None:
    """Execute a statement with ? for its values. It sees neither the rows that wait nor unflushed objects."""
    _execute(session, statement, values)


def read(session: Session, statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """The rows of a query with ? for its values. It sees the rows given to `insert_soon`, but no unflushed objects."""
    _write_waiting(session)
    return list(_execute(session, statement, values).fetchall())


def read_chunks(session: Session, statement: str, values: tuple[Any, ...]) -> Iterator[Sequence[Any]]:
    """Yield the rows of a query with ? for its values, at most CHUNK_ROWS at a time."""
    _write_waiting(session)
    cursor = _execute(session, statement, values, BINARY)
    while rows := cursor.fetchmany(CHUNK_ROWS):
        yield rows


def _execute(
    session: Session, statement: str, values: tuple[Any, ...], options: Mapping[str, Any] | None = None
) -> Any:
    """The driver's cursor."""
    connection = session.connection()
    statement = _marked(statement, dialect_of(connection).parameter)
    return connection.exec_driver_sql(statement, values, options).cursor


_QUOTED_OR_MARK = re.compile(r"""'[^']*'|"[^"]*"|[?%]""")


@lru_cache(512)
def _marked(statement: str, parameter: str) -> str:
    """Replace each ? outside quotes by the driver's mark of a value, and write % as that driver expects it."""
    doubled = parameter.startswith("%")

    def replaced(found: re.Match[str]) -> str:
        return parameter if found[0] == "?" else found[0].replace("%", "%%") if doubled else found[0]

    return _QUOTED_OR_MARK.sub(replaced, statement)
