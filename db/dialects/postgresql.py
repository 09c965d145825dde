"""PostgreSQL (through psycopg): a server, for teams and for several collectors."""

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson
import psycopg
import sqlalchemy as sa

from db.dialects.base import CannotBackUp, Columns, Dialect, Rows, quoted

CONNECT_SECONDS = 10
"""How long the server may take to accept a connection."""
MAX_INSERT_ROWS = 8
"""Up to this number of rows an INSERT is cheaper than a COPY."""
SCHEMA_LOCK = 0x10555
"""Key of the advisory lock under which the schema changes; any number that nobody else uses."""


class PostgreSQL(Dialect):
    """A server. Writers lock rows, and a transaction reads one snapshot only under REPEATABLE READ."""

    name = "postgresql"
    url_example = "postgresql://user@host/name"
    is_file = False
    parameter = "%s"
    read_options: Mapping[str, Any] = {"isolation_level": "REPEATABLE READ"}
    row_lock = " FOR UPDATE"
    clock = "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"

    def create_engine(self, url: sa.URL, **options: Any) -> sa.Engine:
        driver = url.set(drivername="postgresql+psycopg")
        arguments = {"connect_timeout": CONNECT_SECONDS}
        engine = sa.create_engine(driver, pool_pre_ping=True, hide_parameters=True, connect_args=arguments, **options)
        sa.event.listen(engine, "before_cursor_execute", _choose_format)
        return engine

    def store_file(self, url: sa.URL) -> Path | None:
        return None

    def back_up(self, url: sa.URL, target: Path) -> None:
        shown = url.set(drivername="postgresql", password=None).render_as_string()
        raise CannotBackUp(f"this is PostgreSQL; use its own: pg_dump --format=custom --file={target} {shown!r}")

    def insert(self, connection: sa.Connection, table: str, names: Sequence[str], rows: Rows) -> None:
        if len(rows) > MAX_INSERT_ROWS:
            _copy(connection, table, names, rows)
        else:
            super().insert(connection, table, names, rows)

    def update(
        self, connection: sa.Connection, table: str, keys: Columns, changed: Columns, rows: Sequence[Sequence[Any]]
    ) -> None:
        """One statement, and one parameter: the rows as JSON, which the server takes apart faster than parameters."""
        marks = [f"c{at}" for at in range(len(keys) + len(changed))]
        values = orjson.dumps([dict(zip(marks, row, strict=True)) for row in rows], option=orjson.OPT_SERIALIZE_NUMPY)
        statement = _update_statement(connection.dialect, table, tuple(keys), tuple(changed))
        connection.exec_driver_sql(statement, (values.decode(),))

    def partitions(self, connection: sa.Connection) -> Collection[str]:
        found = "SELECT relname FROM pg_class WHERE relispartition AND relnamespace = current_schema()::regnamespace"
        return set(connection.exec_driver_sql(found).scalars())

    def lock_schema(self, connection: sa.Connection) -> None:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(SCHEMA_LOCK)))


def _choose_format(_connection: Any, cursor: Any, _statement: str, _values: Any, context: Any, _many: bool) -> None:
    """Numbers are text by default: to write and to parse it is three times the cost of reading them."""
    if context is not None and context.execution_options.get("lossguard_binary"):
        cursor.format = psycopg.pq.Format.BINARY


@lru_cache
def _update_statement(dialect: sa.Dialect, table: str, keys: Columns, changed: Columns) -> str:
    columns = [(f"c{at}", name, kind.compile(dialect)) for at, (name, kind) in enumerate((*keys, *changed))]
    assign = ", ".join(f'"{name}" = new.{mark}' for mark, name, _ in columns[len(keys) :])
    where = " AND ".join(f'{table}."{name}" = new.{mark}' for mark, name, _ in columns[: len(keys)])
    source = f"json_to_recordset(%s) AS new({', '.join(f'{mark} {kind}' for mark, _, kind in columns)})"
    return f"UPDATE {table} SET {assign} FROM {source} WHERE {where}"


def _copy(connection: sa.Connection, table: str, names: Sequence[str], rows: Rows) -> None:
    statement = f"COPY {table} ({', '.join(quoted(names))}) FROM STDIN"
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    try:
        with driver.cursor() as cursor, cursor.copy(statement.encode()) as copy:
            for row in rows:
                copy.write_row(row)
    except psycopg.Error as error:  # as SQLAlchemy would have raised it
        raise sa.exc.DBAPIError.instance(statement, None, error, psycopg.Error) from error
