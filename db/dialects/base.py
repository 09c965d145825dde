"""Interface of a database to the store, beyond the SQL that all databases share."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.orm import InstrumentedAttribute

WRITES = {"lossguard_writes": True}
"""Execution options of a transaction that is going to write."""
BINARY = {"lossguard_binary": True}
"""Execution options of a query with many numbers: they come as the database has them, where the driver can do that."""

Rows = Sequence[tuple[Any, ...]]
Columns = Sequence[tuple[str, sa.types.TypeEngine[Any]]]
"""Names and types."""


class BadDatabaseUrl(ValueError):
    """The database URL cannot be used; the message says why and how to correct it."""


class QueryTooSlow(Exception):
    """The database gave a query up, because it took longer than it may."""


class CannotBackUp(ValueError):
    """The message is one sentence: why there is no backup, and what to do."""


class Dialect(ABC):
    """One kind of database. Its members are what differs between kinds; everything else in `db` is the same."""

    name: str
    """Name of the database in a URL and in SQLAlchemy."""
    url_example: str
    is_file: bool
    """True if a store is a file of this machine; else it is on a server."""
    parameter: str
    """The mark of a value in a statement for the driver."""
    read_options: Mapping[str, Any] = {}
    """Execution options under which all queries of a transaction see the moment of the first."""
    clock: str
    """SQL for the present time in unix seconds, by the clock of the database and not as of the transaction's start."""
    has_partitions = False
    """True if the tables of blocks are partitioned (see db.store.partitions)."""
    row_lock = ""
    """Suffix of a SELECT that locks its rows in the order of the SELECT; empty where a writer locks the whole store."""

    @abstractmethod
    def create_engine(self, url: sa.URL, **options: Any) -> sa.Engine:
        """An engine whose errors do not show the values of a statement. Raises BadDatabaseUrl."""

    def bound_idle_transactions(self, engine: sa.Engine, seconds: float) -> None:  # noqa: B027 - a file has no server
        """Let the server roll back a transaction of the engine that is idle for the given seconds."""

    def store_file(self, url: sa.URL) -> Path | None:
        """The file of the store, whether it exists or not; None where the store is not in a file."""
        return None

    @abstractmethod
    def back_up(self, url: sa.URL, target: Path) -> None:
        """Write one moment of the store to the new file `target`. Raises CannotBackUp."""

    @abstractmethod
    def time_limit(self, connection: sa.Connection, seconds: float) -> AbstractContextManager[None]:
        """A context in which the database gives up a query after the given seconds and raises QueryTooSlow."""

    def insert(self, connection: sa.Connection, table: str, names: Sequence[str], rows: Rows) -> None:
        """Insert rows, at least one; `names` are its columns."""
        values = ", ".join([self.parameter] * len(names))
        statement = f"INSERT INTO {table} ({', '.join(quoted(names))}) VALUES ({values})"
        # One row alone is not passed as "many": psycopg would open a pipeline for it.
        connection.exec_driver_sql(statement, list(rows) if len(rows) > 1 else rows[0])

    def update(
        self, connection: sa.Connection, table: str, keys: Columns, changed: Columns, rows: Sequence[Sequence[Any]]
    ) -> None:
        """Update rows, at least one, which consist of their keys and their changed columns. JSON is given as objects.

        The caller has locked them, so that their order does not matter.
        """
        assign = ", ".join(f'"{name}" = {self.parameter}' for name, _ in changed)
        where = " AND ".join(f'"{name}" = {self.parameter}' for name, _ in keys)
        values = [tuple(map(_cell, (*row[len(keys) :], *row[: len(keys)]))) for row in rows]
        connection.exec_driver_sql(f"UPDATE {table} SET {assign} WHERE {where}", values)

    @abstractmethod
    def member(self, column: InstrumentedAttribute[Any], key: str) -> sa.ColumnElement[str | None]:
        """The member `key` of the objects in a JSON column, as a text; NULL where there is none."""

    @abstractmethod
    def number(self, column: InstrumentedAttribute[Any], key: str) -> sa.ColumnElement[float | None]:
        """The member as a number; NULL if it is none."""

    @abstractmethod
    def num_bytes(self, engine: sa.Engine) -> int:
        """The size of the store, with what is free in it."""

    @abstractmethod
    def vacuum(self, engine: sa.Engine) -> None:
        """Make the space of deleted rows free."""

    def partitions(self, connection: sa.Connection) -> Collection[str]:
        """The names of the tables that are partitions of others."""
        return ()

    @abstractmethod
    def lower(self, text: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
        """Return the text in small letters, of any alphabet."""

    @abstractmethod
    def contains(self, text: sa.ColumnElement[str], part: str) -> sa.ColumnElement[bool]:
        """Return SQL that is true if a text (not NULL) has `part`, given in small letters, in any case."""

    @abstractmethod
    def changing_schema(self, engine: sa.Engine) -> AbstractContextManager[sa.Connection]:
        """A connection that may change the schema. Other processes that want the same wait until the block ends."""

    def must_retry(self, error: sa.exc.DBAPIError) -> bool:
        """True if a change of the schema was given up because others use a table, so that it may work later."""
        return False

    def oldest_transaction(self, connection: sa.Connection) -> str | None:
        """Describe the other transaction that has been open the longest, for a person to find; None without one."""
        return None


def quoted(names: Sequence[str]) -> list[str]:
    """Column names in quotes, so that none of them is taken for a keyword."""
    return [f'"{name}"' for name in names]


def _cell(value: Any) -> Any:
    is_json = isinstance(value, (dict, list))
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY).decode() if is_json else value
