"""PostgreSQL (through psycopg): a server, for teams and for several collectors."""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson
import psycopg
import sqlalchemy as sa
from sqlalchemy.orm import InstrumentedAttribute

from db.dialects.base import CannotBackUp, Columns, Dialect, QueryTooSlow, Rows, quoted

CONNECT_SECONDS = 10
"""Seconds that the server may take to accept a connection."""
LOST_SERVER = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20_000}
"""Options that give up a connection to a server that answers nothing any more after 20 to 25 s; by default hours."""
MAX_INSERT_ROWS = 8
"""Maximum rows for which an INSERT is cheaper than a COPY."""
SCHEMA_LOCK = 0x10555
"""Key of the advisory lock under which the schema changes; any number that nobody else uses."""
SCHEMA_LOCK_SECONDS = 0.2
"""Seconds after which a process that waits for it asks again."""
LOCK_MS = 200
"""Time for which a change of the schema may wait for a table: all reports queue up behind it meanwhile."""
PLAIN_TABLES = (
    "SELECT relname FROM pg_class WHERE relkind = 'r' AND NOT relispartition"
    " AND relnamespace = current_schema()::regnamespace"
)
OLDEST_TRANSACTION = (
    "SELECT pid, extract(epoch FROM clock_timestamp() - xact_start) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL"
    " ORDER BY xact_start LIMIT 1"
)


class PostgreSQL(Dialect):
    """A server. Writers lock rows, and a transaction reads one snapshot only under REPEATABLE READ."""

    name = "postgresql"
    url_example = "postgresql://user@host/name"
    is_file = False
    parameter = "%s"
    read_options: Mapping[str, Any] = {"isolation_level": "REPEATABLE READ"}
    has_partitions = True
    row_lock = " FOR UPDATE"
    clock = "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"

    def create_engine(self, url: sa.URL, **options: Any) -> sa.Engine:
        driver = url.set(drivername="postgresql+psycopg")
        arguments = {"connect_timeout": CONNECT_SECONDS} | LOST_SERVER
        engine = sa.create_engine(driver, pool_pre_ping=True, hide_parameters=True, connect_args=arguments, **options)
        sa.event.listen(engine, "connect", _plan_each_time)
        sa.event.listen(engine, "before_cursor_execute", _choose_format)
        sa.event.listen(engine, "handle_error", lambda context: _name(context.original_exception))
        return engine

    def bound_idle_transactions(self, engine: sa.Engine, seconds: float) -> None:
        def bound(connection: psycopg.Connection[Any], _record: Any) -> None:
            connection.execute(f"SET idle_in_transaction_session_timeout = {round(1e3 * seconds)}")
            connection.commit()

        sa.event.listen(engine, "connect", bound)

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
        """Update by one statement with one parameter: rows as JSON, which the server parses faster than parameters."""
        marks = [f"c{at}" for at in range(len(keys) + len(changed))]
        values = orjson.dumps([dict(zip(marks, row, strict=True)) for row in rows], option=orjson.OPT_SERIALIZE_NUMPY)
        statement = _update_statement(connection.dialect, table, tuple(keys), tuple(changed))
        connection.exec_driver_sql(statement, (values.decode(),))

    @contextmanager
    def time_limit(self, connection: sa.Connection, seconds: float) -> Iterator[None]:
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {round(1e3 * seconds)}")
        try:
            yield
        except sa.exc.OperationalError as error:
            if isinstance(error.orig, psycopg.errors.QueryCanceled):
                raise QueryTooSlow from error
            raise
        connection.exec_driver_sql("SET LOCAL statement_timeout TO DEFAULT")

    def num_bytes(self, engine: sa.Engine) -> int:
        with engine.connect() as connection:
            return int(connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one())

    def vacuum(self, engine: sa.Engine) -> None:
        """Vacuum all tables: the free end of a table is returned, the rest is for later rows."""
        with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            for table in connection.exec_driver_sql(PLAIN_TABLES).scalars().all():
                connection.exec_driver_sql(f"VACUUM (ANALYZE) {table}")

    def partitions(self, connection: sa.Connection) -> Collection[str]:
        found = "SELECT relname FROM pg_class WHERE relispartition AND relnamespace = current_schema()::regnamespace"
        return set(connection.exec_driver_sql(found).scalars())

    def lower(self, text: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
        return sa.func.lower(text)

    def contains(self, text: sa.ColumnElement[str], part: str) -> sa.ColumnElement[bool]:
        return sa.func.strpos(self.lower(text), part) > 0

    def member(self, column: InstrumentedAttribute[Any], key: str) -> sa.ColumnElement[str | None]:
        return column[key].as_string()  # type: ignore[no-any-return]

    def number(self, column: InstrumentedAttribute[Any], key: str) -> sa.ColumnElement[float | None]:
        return sa.case((sa.func.json_typeof(column[key]) == "number", column[key].as_float()))

    @contextmanager
    def changing_schema(self, engine: sa.Engine) -> Iterator[sa.Connection]:
        """Change the schema outside of a transaction.

        Each migration has its own, so that it locks what it changes for a moment only. The
        advisory lock and the timeout belong to the connection, which is closed at the end.
        """
        with engine.connect() as connection:
            try:
                _lock_schema(connection)
                connection.exec_driver_sql(f"SET lock_timeout = {LOCK_MS}")
                connection.commit()
                yield connection
            finally:
                connection.invalidate()

    def must_retry(self, error: sa.exc.DBAPIError) -> bool:
        return isinstance(error.orig, psycopg.errors.LockNotAvailable | psycopg.errors.DeadlockDetected)

    def oldest_transaction(self, connection: sa.Connection) -> str | None:
        found = connection.exec_driver_sql(OLDEST_TRANSACTION).one_or_none()
        return (
            None
            if found is None
            else f"the oldest transaction is that of process {found[0]}, open for {found[1]:.0f} s"
        )


def _lock_schema(connection: sa.Connection) -> None:
    """Ask until it is free: a statement that waits has a snapshot, for which CREATE INDEX CONCURRENTLY would wait."""
    while not connection.scalar(sa.select(sa.func.pg_try_advisory_lock(SCHEMA_LOCK))):
        connection.commit()
        time.sleep(SCHEMA_LOCK_SECONDS)


def _plan_each_time(connection: psycopg.Connection[Any], _record: Any) -> None:
    """A plan that is kept for all runs locks all partitions, so that it waits for one that is written anew."""
    connection.execute("SET plan_cache_mode = force_custom_plan")
    connection.commit()


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


def _name(error: BaseException) -> None:
    """Raise the error as what it is to the store, where the driver takes it for another kind.

    PostgreSQL has an error of the row where the table has no partition for it. A transaction that was idle for too long
    may be tried again, and so may one at a server that takes no writes now, such as a standby.
    """
    if isinstance(error, psycopg.errors.IdleInTransactionSessionTimeout | psycopg.errors.ReadOnlySqlTransaction):
        raise sa.exc.OperationalError(None, None, error) from error
    if isinstance(error, psycopg.errors.CheckViolation) and str(error).startswith("no partition of relation"):
        raise sa.exc.ProgrammingError(None, None, error) from error


def _copy(connection: sa.Connection, table: str, names: Sequence[str], rows: Rows) -> None:
    statement = f"COPY {table} ({', '.join(quoted(names))}) FROM STDIN"
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    try:
        with driver.cursor() as cursor, cursor.copy(statement.encode()) as copy:
            for row in rows:
                copy.write_row(row)
    except psycopg.Error as error:  # as SQLAlchemy would have raised it
        _name(error)
        raise sa.exc.DBAPIError.instance(statement, None, error, psycopg.Error) from error
