"""How a migration changes a store that collectors write to meanwhile: docs/operations.md#migrations-of-a-store-in-use.

A migration after 0019 locks no table on PostgreSQL for longer than a moment; tests/db/test_live_migrations.py says what
that excludes. What takes longer, and holds up nobody, is done with what is here.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from alembic import op


@contextmanager
def unhurried() -> Iterator[None]:
    """Statements that may wait and run for long, because no writer waits for them. PostgreSQL alone.

    Each one is committed by itself, and so is what the migration did before: it is tried again from its start.
    """
    with op.get_context().autocommit_block():
        timeout = op.get_bind().exec_driver_sql("SHOW lock_timeout").scalar_one()
        op.execute("SET lock_timeout = 0")
        try:
            yield
        finally:
            op.execute(f"SET lock_timeout = '{timeout}'")


def create_index(name: str, table: str, columns: Sequence[str]) -> None:
    """Create an index of a big table. On PostgreSQL, one that an attempt left unfinished is created anew."""
    if op.get_context().dialect.name != "postgresql":
        op.create_index(name, table, columns, if_not_exists=True)
        return
    with unhurried():
        op.drop_index(name, table, if_exists=True, postgresql_concurrently=True)
        op.create_index(name, table, columns, postgresql_concurrently=True)
