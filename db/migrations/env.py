"""Alembic's entry: runs on the connection that db.migrate passes in."""

from alembic import context

from db import hardware, leader, step_notes  # noqa: F401 - their tables belong to the metadata
from db.models import Base

connection = context.config.attributes["connection"]
context.configure(
    connection=connection, target_metadata=Base.metadata, render_as_batch=True, transaction_per_migration=True
)
with context.begin_transaction():
    context.run_migrations()
