"""Migrations: upgrade a database to the newest schema, and detect drift.

Each migration names the oldest revision whose release may use the store afterwards, `compatible_from`. The store has
the newest of those, so that a release which does not know these migrations can tell whether it may go on.
"""

import functools
import io
import random
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError

from db.models import SchemaCompatibility
from db.store import partitions
from db.store.engine import dialect_of, pre_release

MIGRATIONS = Path(__file__).parent / "migrations"
PATIENCE_SECONDS = 300.0
"""Seconds for which a migration is tried again before it is given up."""
RETRY_SECONDS = 1.0
"""Maximum seconds between two attempts; reports that queued up are stored in between."""


class NewerSchema(CommandError):
    """The schema is of a newer release, and this one may not use it; the message says so, and what to do."""


class PreRelease(CommandError):
    """The store is of a pre-release; the message says so, and what to do."""


class StoreInUse(CommandError):
    """A migration did not get its locks; the message says who may have them, and what to do."""


@functools.cache
def _script(folder: Path) -> ScriptDirectory:
    """The migrations, read once: `/readyz` compares the schema with them at every probe."""
    return ScriptDirectory(str(folder))


def _config(connection: sa.Connection) -> Config:
    config = Config(stdout=io.StringIO())  # alembic's own messages are not for the users of our commands
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def upgrade(engine: sa.Engine, revision: str = "head", *, patience: float = PATIENCE_SECONDS) -> None:
    """Upgrade the schema to `revision`; a migration and its entry in the version table commit together.

    On PostgreSQL each migration is a transaction of its own, which gives up when it does not get its locks at once, and
    is tried again for `patience` seconds: collectors write meanwhile. A schema of a newer release that this one may use
    stays as it is. Raises StoreInUse, NewerSchema, and PreRelease before anything is written.
    """
    _change(engine, _upgrade_unless_newer, revision, patience)
    partitions.make_missing(engine)


def downgrade(engine: sa.Engine, revision: str) -> None:
    """Undo the migrations after `revision`, all or none: one of them may refuse.

    Raises StoreInUse, PreRelease, CommandError.
    """
    _change(engine, _downgrade_at_once, revision, PATIENCE_SECONDS)


def _upgrade_unless_newer(connection: sa.Connection, revision: str) -> None:
    script = _script(MIGRATIONS)
    with _one_transaction(connection):  # it ends here: each migration begins one of its own
        _refuse_pre_release(connection)
        current = _current(connection)
        is_newer = not _knows(script, current)
        if is_newer and (reason := _newer_misfit(connection, script, str(current))):
            raise NewerSchema(reason)
    if not is_newer:
        command.upgrade(_config(connection), revision)


def _one_transaction(connection: sa.Connection) -> AbstractContextManager[object]:
    return nullcontext() if connection.in_transaction() else connection.begin()


def _knows(script: ScriptDirectory, revision: str | None) -> bool:
    return revision is None or revision in {one.revision for one in script.walk_revisions()}


def _downgrade_at_once(connection: sa.Connection, revision: str) -> None:
    with _one_transaction(connection):
        _refuse_pre_release(connection)
        command.downgrade(_config(connection), revision)


def _change(engine: sa.Engine, change: Callable[[sa.Connection, str], None], revision: str, patience: float) -> None:
    dialect = dialect_of(engine)
    latest = time.monotonic() + patience
    with dialect.changing_schema(engine) as connection:
        while True:
            try:
                return change(connection, revision)
            except sa.exc.DBAPIError as error:
                if not dialect.must_retry(error):
                    raise
            connection.rollback()
            if time.monotonic() > latest:
                raise StoreInUse(_in_use(connection, patience))
            time.sleep(random.uniform(0.5, 1.0) * RETRY_SECONDS)


def _in_use(connection: sa.Connection, patience: float) -> str:
    current = _current(connection)
    oldest = dialect_of(connection).oldest_transaction(connection) or "no other transaction is open now"
    return (
        f"the migration after {current or 'none'} got no lock on its tables for {patience:.0f} s, and changed nothing;"
        f" {oldest}: end it, then run: python -m db upgrade"
    )


def revisions(engine: sa.Engine) -> tuple[str | None, str | None]:
    """(the database's revision, the newest one): equal when there is nothing to do."""
    script = _script(MIGRATIONS)
    with engine.connect() as connection:
        return _current(connection), script.get_current_head()


def _current(connection: sa.Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _refuse_pre_release(connection: sa.Connection) -> None:
    if reason := pre_release(connection):
        raise PreRelease(reason)


def note(ctx: MigrationContext, step: object, heads: Collection[Any], run_args: Mapping[str, Any]) -> None:
    """Store what the schema needs after a migration, in its transaction (alembic's `on_version_apply`)."""
    assert ctx.script is not None
    assert ctx.connection is not None
    if heads:
        passed = ctx.script.iterate_revisions(next(iter(heads)), "base")
        # A schema that names no first compatible revision is compatible with itself alone.
        needed = max(str(getattr(one.module, "compatible_from", one.revision)) for one in passed)
        ctx.connection.execute(sa.delete(SchemaCompatibility))
        ctx.connection.execute(sa.insert(SchemaCompatibility).values(compatible_from=needed))


def _newer_misfit(connection: sa.Connection, script: ScriptDirectory, current: str) -> str | None:
    """Return why this release may not use a schema at `current`, which it does not know; None: it may."""
    needed = connection.scalar(sa.select(SchemaCompatibility.compatible_from))
    if needed is not None and _knows(script, needed):
        return None
    return (
        f"the schema is at {current}, for releases from {needed or current} on, and this one is of"
        f" {script.get_current_head()}; install the release that upgraded the store"
    )


def misfit(engine: sa.Engine) -> str | None:
    """Return why this release may not use the database as it is, and how to mend it; None: it may."""
    script = _script(MIGRATIONS)
    newest = script.get_current_head()
    with engine.connect() as connection:
        if reason := pre_release(connection):
            return reason
        current = _current(connection)
        if current is not None and not _knows(script, current):
            return _newer_misfit(connection, script, current)
    if current == newest:
        return None
    return (
        f"the schema is at {current or 'nothing'}, this release needs {newest};"
        " if no migration is running, run: python -m db upgrade"
    )


def drift(engine: sa.Engine) -> str | None:
    """Return one sentence about how the database differs from the models; None when it does not."""
    current, newest = revisions(engine)
    if reason := misfit(engine):
        return reason
    if current != newest:
        return f"the database is at revision {current}, newer than this release ({newest}), which may go on using it"
    with engine.connect() as connection:
        try:
            command.check(_config(connection))
        except CommandError as error:
            return f"the database differs from the models: {error}"
    return None
