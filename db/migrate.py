"""Migrations: upgrade a database to the newest schema, and detect drift."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError

from db.dialects import dialect_of
from db.dialects.base import WRITES

MIGRATIONS = Path(__file__).parent / "migrations"


def _config(connection: sa.Connection) -> Config:
    config = Config(stdout=io.StringIO())  # alembic's own messages are not for the users of our commands
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


@contextmanager
def _changing(engine: sa.Engine) -> Iterator[Config]:
    """A transaction that may change the schema: a second collector that starts meanwhile waits, and finds it done."""
    with engine.execution_options(**WRITES).begin() as connection:
        dialect_of(connection).lock_schema(connection)
        yield _config(connection)


def upgrade(engine: sa.Engine, revision: str = "head") -> None:
    """Upgrade the schema to `revision`; a migration and its entry in the version table commit together."""
    with _changing(engine) as config:
        command.upgrade(config, revision)


def downgrade(engine: sa.Engine, revision: str) -> None:
    with _changing(engine) as config:
        command.downgrade(config, revision)


def revisions(engine: sa.Engine) -> tuple[str | None, str | None]:
    """(the database's revision, the newest one): equal when there is nothing to do."""
    script = ScriptDirectory(str(MIGRATIONS))
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision(), script.get_current_head()


def drift(engine: sa.Engine) -> str | None:
    """How the database differs from the models, in one sentence; None when it does not."""
    current, newest = revisions(engine)
    if current != newest:
        return f"the database is at revision {current or 'none'}, the code at {newest}; run: python -m db upgrade"
    with engine.connect() as connection:
        try:
            command.check(_config(connection))
        except CommandError as error:
            return f"the database differs from the models: {error}"
    return None
