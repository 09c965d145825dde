"""Many rows at once and short questions asked all the time, past the ORM: by the driver, at a tenth of the cost."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Session

PART = 2_000
"""Rows that `parts` hands on at a time, and that `insert_soon` lets wait."""
WAITING = "waiting_rows"
"""In a session's `info`: what `insert_soon` was given, by table and columns."""
FEW = 8
"""Up to so many rows an INSERT is cheaper than a COPY."""


def insert(session: Session, table: type[DeclarativeBase], columns: dict[str, Any]) -> None:
    """Insert rows given as columns: lists of equal length, or one value for all rows. JSON columns hold text."""
    _insert(session, table.__tablename__, list(columns), _rows(columns))


def insert_soon(session: Session, table: type[DeclarativeBase], columns: dict[str, Any]) -> None:
    """The same, but together with others like them: at the latest before the session asks anything, or commits.

    Not for a transaction with savepoints: the rows would know nothing of them.
    """
    if WAITING not in session.info:
        session.info[WAITING] = {}
        sa.event.listen(session, "do_orm_execute", lambda asked: _insert_waiting(asked.session))
        sa.event.listen(session, "before_commit", _insert_waiting)
        sa.event.listen(session, "after_rollback", lambda session: session.info[WAITING].clear())
    rows = session.info[WAITING].setdefault((table.__tablename__, tuple(columns)), [])
    rows.extend(_rows(columns))
    if len(rows) >= PART:
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
    if session.new:  # rows that these refer to; changes of others can wait, and are then written together
        session.flush()
    connection = session.connection()
    if connection.dialect.name == "postgresql" and len(rows) > FEW:
        _copy(connection, table, names, rows)
        return
    marks = ", ".join(["?" if connection.dialect.name == "sqlite" else "%s"] * len(names))
    into = f"{table} ({', '.join(quoted(names))})"
    # one row alone is no "many": psycopg would open a pipeline for it
    connection.exec_driver_sql(f"INSERT INTO {into} VALUES ({marks})", rows if len(rows) > 1 else rows[0])


def run(session: Session, statement: str, values: tuple[Any, ...]) -> None:
    """Execute a statement with ? for its values."""
    _execute(session, statement, values)


def read(session: Session, statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """The rows of a question with ? for its values. It sees what `insert_soon` was given, but nothing unflushed."""
    return list(_execute(session, statement, values).fetchall())


def parts(session: Session, statement: str, values: tuple[Any, ...]) -> Iterator[Sequence[Any]]:
    """The same rows, PART at a time."""
    cursor = _execute(session, statement, values)
    while rows := cursor.fetchmany(PART):
        yield rows


def _execute(session: Session, statement: str, values: tuple[Any, ...]) -> Any:
    """The driver's cursor."""
    _insert_waiting(session)
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        statement = statement.replace("?", "%s")
    return connection.exec_driver_sql(statement, values).cursor


def _copy(connection: sa.Connection, table: str, names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    statement = f"COPY {table} ({', '.join(quoted(names))}) FROM STDIN"
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    try:
        with driver.cursor() as cursor, cursor.copy(statement.encode()) as copy:
            for row in rows:
                copy.write_row(row)
    except psycopg.Error as error:  # as SQLAlchemy would have raised it
        raise sa.exc.DBAPIError.instance(statement, None, error, psycopg.Error) from error


def quoted(names: Iterable[str]) -> list[str]:
    """Column names as both databases take them, whatever they mean to either."""
    return [f'"{name}"' for name in names]
