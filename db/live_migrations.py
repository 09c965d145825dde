"""How a migration changes a store that collectors write to meanwhile: docs/operations.md#migrations-of-a-store-in-use.

A migration after 0019 locks no table on PostgreSQL for longer than a moment; tests/db/test_live_migrations.py says what
that excludes. What takes longer is here, or is done in the background after the upgrade.
"""

from collections.abc import Sequence

from alembic import op


def create_index(name: str, table: str, columns: Sequence[str]) -> None:
    """Create an index of a big table. On PostgreSQL the migration is committed up to here: let it do nothing else.

    What an earlier attempt left, which PostgreSQL keeps as an invalid index, is created anew.
    """
    context = op.get_context()
    if context.dialect.name != "postgresql":
        op.create_index(name, table, columns, if_not_exists=True)
        return
    with context.autocommit_block():
        timeout = op.get_bind().exec_driver_sql("SHOW lock_timeout").scalar_one()
        op.execute("SET lock_timeout = 0")  # it waits for older transactions, and nobody waits for it
        op.drop_index(name, table, if_exists=True, postgresql_concurrently=True)
        op.create_index(name, table, columns, postgresql_concurrently=True)
        op.execute(f"SET lock_timeout = '{timeout}'")
