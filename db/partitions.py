"""Partitions of the tables of blocks on PostgreSQL: docs/store.md#partitions. SQLite has none.

A partition holds the blocks of NUM_KEYS runs that were registered one after another, so the runs of one partition grow
old together: when all of them are deleted, it is truncated, which returns its space at once.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.dialects import dialect_of
from db.dialects.postgresql import LOCK_MS
from db.models import BlockValues, Run, StoredBlock
from lossguard.states import RunState

TABLES = {"step_blocks": ("steps", "times"), "block_values": ("values", "reported")}
"""The tables of blocks, and the columns that take their space."""
NUM_KEYS = 100
"""Keys of runs in a partition: a gigabyte of runs with 100,000 steps. It is in the bounds of the stored partitions."""
ROW_BYTES = 100
"""What a row takes besides them, in the table and its index."""
LOCK = 0x10556
"""Key of the advisory lock under which partitions are made, so that two collectors do not make the same."""


def number_of(run_pk: int) -> int:
    """The number of the partition that holds the run."""
    return run_pk // NUM_KEYS


def keys(number: int) -> range:
    """The keys of runs that the partition holds."""
    return range(number * NUM_KEYS, (number + 1) * NUM_KEYS)


def names(number: int) -> dict[str, str]:
    """Of each table, the name of the partition."""
    return {table: f"{table}_{number}" for table in TABLES}


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
    wanted = {partition: (table, number) for number in numbers for table, partition in names(number).items()}
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
    attached = set(connection.exec_driver_sql(found, (sorted(wanted),)).scalars())
    return sorted(set(wanted) - attached)


def delete_blocks(session: Session, run_pks: Sequence[int]) -> None:
    """Delete the blocks of runs that this transaction has deleted. A partition without any other run is truncated."""
    for number, pks in groupby(sorted(run_pks), number_of):
        if not (dialect_of(session.get_bind()).has_partitions and _truncate(session.connection(), number)):
            among = list(pks)
            for table in (BlockValues, StoredBlock):
                session.execute(sa.delete(table).where(table.run_pk.in_(among)))


def _truncate(connection: sa.Connection, number: int) -> bool:
    """Whether the partition could be truncated: it has no runs any more, and nobody reads it now."""
    partitions = names(number).values()
    if _has_runs(connection, number) or _missing(connection, partitions):
        return False
    try:
        with connection.begin_nested():
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = {LOCK_MS}")
            connection.exec_driver_sql(f"LOCK TABLE {', '.join(partitions)} IN ACCESS EXCLUSIVE MODE")
            connection.exec_driver_sql("SET LOCAL lock_timeout TO DEFAULT")
            if _has_runs(connection, number):  # registered a moment ago; its first block waits for the lock
                return False
            connection.exec_driver_sql(f"TRUNCATE {', '.join(partitions)}")
            return True
    except sa.exc.OperationalError as error:
        if not dialect_of(connection).must_retry(error):
            raise
        return False


def compact(engine: sa.Engine) -> None:
    """Give back the space of deleted blocks. What somebody uses at the moment is left for the next time.

    A partition that no run needs any more is dropped. Where at least half is free, and no run is running, the rest is
    rewritten: only readers of the runs of this partition wait for it.
    """
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        try:
            connection.exec_driver_sql(f"SET lock_timeout = {LOCK_MS}")
            last = number_of(connection.scalar(sa.select(sa.func.max(Run.pk))) or 0)
            for partition in sorted(dialect_of(connection).partitions(connection)):
                table, _, number = partition.rpartition("_")
                if table in TABLES and number.isdigit():
                    _compact(connection, table, int(number), is_last=int(number) >= last)
        finally:
            connection.invalidate()  # with its lock_timeout


def _compact(connection: sa.Connection, table: str, number: int, *, is_last: bool) -> None:
    partition = names(number)[table]
    try:
        if not is_last and not _has_runs(connection, number):
            connection.exec_driver_sql(f"DROP TABLE {partition}")
        elif not _has_runs(connection, number, RunState.RUNNING) and _is_half_free(connection, table, partition):
            connection.exec_driver_sql(f"VACUUM (FULL, ANALYZE) {partition}")
        else:
            connection.exec_driver_sql(f"VACUUM (ANALYZE) {partition}")
    except sa.exc.OperationalError as error:
        if not dialect_of(connection).must_retry(error):
            raise


def _is_half_free(connection: sa.Connection, table: str, partition: str) -> bool:
    columns = " + ".join(f'coalesce(pg_column_size("{column}"), 0)' for column in TABLES[table])
    used = f"SELECT coalesce(sum({columns} + {ROW_BYTES}), 0) FROM {partition}"
    size = f"SELECT pg_total_relation_size('{partition}')"
    return bool(connection.exec_driver_sql(f"SELECT 2 * ({used}) + 1e6 < ({size})").scalar_one())


def _has_runs(connection: sa.Connection, number: int, state: RunState | None = None) -> bool:
    """Whether there are runs of the partition, or of it in this state."""
    found = sa.select(Run.pk).where(Run.pk >= keys(number).start, Run.pk < keys(number).stop)
    return (
        connection.execute((found if state is None else found.where(Run.state == state)).limit(1)).first() is not None
    )
