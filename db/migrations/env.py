"""Alembic's entry: runs on the connection that db.migrate passes in."""

from collections.abc import Collection, MutableMapping
from functools import cache
from typing import Any

import sqlalchemy as sa
from alembic import context

from db import migrate
from db.models import Base
from db.records import arms, hardware, step_notes  # noqa: F401 - their tables belong to the metadata
from db.steps.archived import files  # noqa: F401 - its table too
from db.store import leader  # noqa: F401 - its table too
from db.store.engine import dialect_of

connection: sa.Connection = context.config.attributes["connection"]


@cache  # read when it is asked for: a query before the migrations would open a transaction around all of them
def partitions() -> Collection[str]:
    return dialect_of(connection).partitions(connection)


def is_compared(name: str | None, kind: str, _parents: MutableMapping[Any, str | None]) -> bool:
    """True if it must be as the models say. Partitions come and go with the runs; the models know only their tables."""
    return kind != "table" or name not in partitions()


context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    render_as_batch=True,
    transaction_per_migration=True,
    include_name=is_compared,
    on_version_apply=migrate.note,
)
with context.begin_transaction():
    context.run_migrations()
