"""Many rows at once, and short queries that run all the time: by the driver, at a tenth of what the ORM costs."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Session

from db.dialects import dialect_of
from db.dialects.base import BINARY
from db.dialects.base import quoted as quoted

CHUNK_ROWS = 2_000
"""Rows that `read_chunks` yields at a time."""
MAX_WAITING_ROWS = 2_000
"""Rows of one table that `insert_soon` lets wait."""
WAITING = "waiting_rows"
"""Key in a session's `info`: the rows given to `insert_soon`, by table and columns."""


def insert(session: Session, table: type[DeclarativeBase], columns: dict[str, Any]) -> None:
    """Insert rows given as columns: lists of equal length, or one value for all rows. JSON is given as text."""
    _insert(session, table.__tablename__, list(columns), _rows(columns))


def insert_soon(session: Session, table: type[DeclarativeBase], columns: dict[str, Any]) -> None:
    """The same, but with one statement for the rows of many calls: before the session's next query or commit.

    Not for a transaction with savepoints, which the waiting rows would ignore.
    """
    if WAITING not in session.info:
        session.info[WAITING] = {}
        sa.event.listen(session, "do_orm_execute", lambda query: _insert_waiting(query.session))
        sa.event.listen(session, "before_commit", _insert_waiting)
        sa.event.listen(session, "after_rollback", lambda session: session.info[WAITING].clear())
    rows = session.info[WAITING].setdefault((table.__tablename__, tuple(columns)), [])
    rows.extend(_rows(columns))
    if len(rows) >= MAX_WAITING_ROWS:
        _insert_waiting(session)


def _insert_waiting(session: Session) -> None:
    waiting = session.info.get(WAITING)
    while waiting:
        (table, names), rows = waiting.popitem()
        _insert(session, table, names, rows)


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
    """Execute a statement with ? for its values."""
    _execute(session, statement, values)


def read(session: Session, statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """The rows of a query with ? for its values. It sees the rows given to `insert_soon`, but no unflushed objects."""
    return list(_execute(session, statement, values).fetchall())


def read_chunks(
    session: Session, statement: str, values: tuple[Any, ...], *, chunk_rows: int = CHUNK_ROWS
) -> Iterator[Sequence[Any]]:
    """The same rows, at most `chunk_rows` at a time."""
    cursor = _execute(session, statement, values, BINARY)
    while rows := cursor.fetchmany(chunk_rows):
        yield rows


def _execute(
    session: Session, statement: str, values: tuple[Any, ...], options: Mapping[str, Any] | None = None
) -> Any:
    """The driver's cursor."""
    _insert_waiting(session)
    connection = session.connection()
    statement = statement.replace("?", dialect_of(connection).parameter)
    return connection.exec_driver_sql(statement, values, options).cursor


def json_text(session: Session, column: str) -> str:
    """SQL for the text of a JSON column, which the driver would parse otherwise."""
    return dialect_of(session.get_bind()).json_text(column)
