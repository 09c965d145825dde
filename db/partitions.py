"""Partitions of the tables of blocks on PostgreSQL: docs/store.md#partitions. SQLite has none.

A partition holds the blocks of NUM_KEYS runs that were registered one after another, so the runs of one partition grow
old together: when all of them are deleted, it is truncated, which returns its space at once.
"""

from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.dialects import dialect_of
from db.models import BlockValues, Run, StoredBlock

TABLES = (StoredBlock.__tablename__, BlockValues.__tablename__)
NUM_KEYS = 100
"""Keys of runs in a partition: a gigabyte of runs with 100,000 steps. It is in the bounds of the stored partitions."""
LOCK = 0x10556
"""Key of the advisory lock under which partitions are made, so that two collectors do not make the same."""


def number_of(run_pk: int) -> int:
    """The number of the partition that holds the run."""
    return run_pk // NUM_KEYS


def keys(number: int) -> range:
    """The keys of runs that the partition holds."""
    return range(number * NUM_KEYS, (number + 1) * NUM_KEYS)


def name(table: str, number: int) -> str:
    return f"{table}_{number}"


def make_ahead(session: Session, run_pk: int) -> None:
    """Make the partition of a new run, and the next one before the first run of that is registered."""
    if dialect_of(session.get_bind()).has_partitions:
        _make(session.connection(), {number_of(run_pk), number_of(run_pk + NUM_KEYS // 2)})


def make_for(session: Session, run_pk: int) -> None:
    """Make the partition of a run that may be without one: it is older than the partitions, or somebody dropped it."""
    if dialect_of(session.get_bind()).has_partitions:
        _make(session.connection(), {number_of(run_pk)})


def make_missing(engine: sa.Engine) -> None:
    """Make the partitions of all stored runs and of the next ones."""
    if not dialect_of(engine).has_partitions:
        return
    with engine.connect() as connection:
        if not set(TABLES) <= set(sa.inspect(connection).get_table_names()):
            return
        last = connection.scalar(sa.select(sa.func.max(Run.pk))) or 0
    for number in range(number_of(last + NUM_KEYS // 2) + 1):
        with engine.begin() as connection:
            _make(connection, {number})


def _make(connection: sa.Connection, numbers: Iterable[int]) -> None:
    """Make those that are missing. Others read and write the table meanwhile: it has no default partition."""
    wanted = {name(table, number): (table, number) for number in numbers for table in TABLES}
    if not _missing(connection, wanted):
        return
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
    for partition in _missing(connection, wanted):
        table, number = wanted[partition]
        bounds = keys(number)
        connection.exec_driver_sql(f"CREATE TABLE IF NOT EXISTS {partition} (LIKE {table} INCLUDING ALL)")
        connection.exec_driver_sql(
            f"ALTER TABLE {table} ATTACH PARTITION {partition} FOR VALUES FROM ({bounds.start}) TO ({bounds.stop})"
        )


def _missing(connection: sa.Connection, wanted: Iterable[str]) -> list[str]:
    found = "SELECT n FROM unnest(%s::text[]) n WHERE (SELECT relispartition FROM pg_class WHERE oid = to_regclass(n))"
    names = sorted(wanted)
    attached = set(connection.exec_driver_sql(found, (names,)).scalars())
    return [one for one in names if one not in attached]
