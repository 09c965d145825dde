"""Partitions on PostgreSQL of the tables with the most rows: docs/store.md#partitions. SQLite has none.

A partition holds what belongs to NUM_KEYS runs that were registered one after another, so its runs grow old together:
when all of them are deleted, it is truncated, which returns its space at once. These tables have no foreign key to
`runs`, which would have to be locked whenever a partition is made or dropped; `delete_rows` does what it would do.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.dialects.postgresql import LOCK_MS
from db.models import BlockValues, Rollup, Run, StoredBlock
from db.store.engine import dialect_of
from lossguard.vocabulary.states import RunState

LARGE_COLUMNS = {"step_blocks": ("steps", "times"), "block_values": ("values", "reported"), "rollups": ()}
"""The tables that are partitioned, and the columns of each that take bytes of their own."""
ROW_BYTES = 170
"""Maximum bytes of a row besides these columns, with its part of the index."""
NUM_KEYS = 100
"""Keys of runs in a partition: a gigabyte of runs with 100,000 steps. It is in the bounds of the stored partitions."""
PARTITION = re.compile(rf"(?:{'|'.join(LARGE_COLUMNS)})_\d+")
"""The name of a partition, which ends in its number."""
LOCK = 0x10556
"""Key of the advisory lock under which partitions are made, so that two collectors do not make the same."""


def number_of(run_pk: int) -> int:
    """The number of the partition that holds the run."""
    return run_pk // NUM_KEYS


def _keys(partition: str) -> range:
    """The keys of runs that a partition holds."""
    return _keys_of(int(partition.rpartition("_")[2]))


def _keys_of(number: int) -> range:
    return range(number * NUM_KEYS, (number + 1) * NUM_KEYS)


def make_for(session: Session, run_pk: int, *, is_new: bool = False) -> None:
    """Make the partition of a run that may be without one, because somebody dropped it; of a new run also the next
    one, before the first run of that is registered."""
    if dialect_of(session.get_bind()).has_partitions:
        ahead = NUM_KEYS // 2 if is_new else 0
        _make(session.connection(), {number_of(run_pk), number_of(run_pk + ahead)})


def make_missing(engine: sa.Engine) -> None:
    """Make the partitions of all stored runs and of the next ones."""
    if not dialect_of(engine).has_partitions:
        return
    with engine.connect() as connection:
        if "runs" not in sa.inspect(connection).get_table_names():
            return
        pks = connection.scalars(sa.select(Run.pk)).all()
    for number in sorted({number_of(pk) for pk in (*pks, max(pks, default=0) + NUM_KEYS // 2)}):
        with engine.begin() as connection:
            _make(connection, {number})


def missing(engine: sa.Engine) -> list[tuple[str, range]]:
    """The partitions of stored runs that somebody dropped or detached, each with the keys of the runs that need it."""
    if not dialect_of(engine).has_partitions:
        return []
    with engine.connect() as connection:
        if not connection.exec_driver_sql(PARTITIONED, (list(LARGE_COLUMNS),)).all():
            return []
        numbers = {number_of(pk) for pk in connection.execute(sa.select(Run.pk)).scalars()}
        return [(partition, _keys(partition)) for _, partition in _missing(connection, numbers)]


def _make(connection: sa.Connection, numbers: Iterable[int]) -> None:
    """Make those that are missing. Others read and write the table meanwhile: it has no default partition."""
    if not list(_missing(connection, numbers)):
        return
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
    for table, partition in _missing(connection, numbers):
        bounds = _keys(partition)
        connection.exec_driver_sql(f"CREATE TABLE IF NOT EXISTS {partition} (LIKE {table} INCLUDING ALL)")
        connection.exec_driver_sql(
            f"ALTER TABLE {table} ATTACH PARTITION {partition} FOR VALUES FROM ({bounds.start}) TO ({bounds.stop})"
        )


def _missing(connection: sa.Connection, numbers: Iterable[int]) -> Iterator[tuple[str, str]]:
    """(table, partition) where no partition holds the runs of a number."""
    wanted = sorted(numbers)
    partitions = _partitions(connection)
    for table in connection.exec_driver_sql(PARTITIONED, (list(LARGE_COLUMNS),)).scalars():
        known = [_keys(one) for one in partitions if one.startswith(f"{table}_")]
        for number in wanted:
            if not any(number * NUM_KEYS in keys for keys in known):
                yield table, f"{table}_{number}"


PARTITIONED = (
    "SELECT relname FROM pg_class WHERE relkind = 'p' AND oid = ANY(SELECT to_regclass(n) FROM unnest(%s::text[]) n)"
)


def _partitions(connection: sa.Connection) -> list[str]:
    return sorted(filter(PARTITION.fullmatch, dialect_of(connection).partitions(connection)))


def delete_rows(session: Session, run_pks: Sequence[int]) -> None:
    """Delete the rows of runs that this transaction has deleted. A partition without any other run is emptied."""
    for number, pks in groupby(sorted(run_pks), number_of):
        among = list(pks)
        is_partitioned = dialect_of(session.get_bind()).has_partitions
        emptied = _empty(session.connection(), number) if is_partitioned else []
        for table in (StoredBlock, BlockValues, Rollup):
            if table.__tablename__ not in emptied:
                session.execute(sa.delete(table).where(table.run_pk.in_(among)))


def _empty(connection: sa.Connection, number: int) -> list[str]:
    """The tables whose partition has been truncated; none where a run is left, or somebody reads the partition.

    Rows that are left cannot be written anew: a backup or an export whose snapshot is older would see none of them.
    """
    known = set(_partitions(connection))
    partitions = {table: f"{table}_{number}" for table in LARGE_COLUMNS if f"{table}_{number}" in known}
    keys = _keys_of(number)
    if not partitions or _has_runs(connection, keys):
        return []
    try:
        with connection.begin_nested():
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = {LOCK_MS}")
            connection.exec_driver_sql(f"LOCK TABLE {', '.join(partitions.values())} IN ACCESS EXCLUSIVE MODE")
            connection.exec_driver_sql("SET LOCAL lock_timeout TO DEFAULT")
            if _has_runs(connection, keys):  # it was registered a moment ago
                return []
            connection.exec_driver_sql(f"TRUNCATE {', '.join(partitions.values())}")
            return list(partitions)
    except sa.exc.OperationalError as error:
        if not dialect_of(connection).must_retry(error):
            raise
        return []


def compact(engine: sa.Engine) -> None:
    """Give back the space of deleted rows. What somebody uses at the moment is left for the next time.

    A partition that no run needs any more is dropped. Where at least half is free, and no run is running, the rest is
    rewritten: only readers of the runs of this partition wait for it.
    """
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        try:
            connection.exec_driver_sql(f"SET lock_timeout = {LOCK_MS}")
            newest = connection.scalar(sa.select(sa.func.max(Run.pk))) or 0
            for partition in _partitions(connection):
                _compact(connection, partition, newest)
        finally:
            connection.invalidate()  # with its lock_timeout


def _compact(connection: sa.Connection, partition: str, newest: int) -> None:
    keys = _keys(partition)
    try:
        if keys.stop <= newest and not _has_runs(connection, keys):
            connection.exec_driver_sql(f"DROP TABLE {partition}")
        elif not _has_runs(connection, keys, RunState.RUNNING) and _is_half_free(connection, partition):
            connection.exec_driver_sql(f"VACUUM (FULL, ANALYZE) {partition}")
        else:
            connection.exec_driver_sql(f"VACUUM (ANALYZE) {partition}")
    except sa.exc.OperationalError as error:
        if not dialect_of(connection).must_retry(error):
            raise


def _is_half_free(connection: sa.Connection, partition: str) -> bool:
    table = partition.rpartition("_")[0]
    parts = [str(ROW_BYTES), *(f'coalesce(pg_column_size("{column}"), 0)' for column in LARGE_COLUMNS[table])]
    used = f"SELECT coalesce(sum({' + '.join(parts)}), 0) FROM {partition}"
    size = f"SELECT pg_total_relation_size('{partition}')"
    return bool(connection.exec_driver_sql(f"SELECT 2 * ({used}) + 1e6 < ({size})").scalar_one())


def _has_runs(connection: sa.Connection, keys: range, state: RunState | None = None) -> bool:
    """True if there are runs with these keys, or some in this state."""
    found = sa.select(Run.pk).where(Run.pk >= keys.start, Run.pk < keys.stop)
    if state is not None:
        found = found.where(Run.state == state)
    return connection.execute(found.limit(1)).first() is not None
