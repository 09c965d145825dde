"""Features of a store that every process must know, and the releases that may use it."""

from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.models import Base, Feature

# Features. The caller owns the transaction.
#
# A new one is off in a store that an earlier release may still write to, until an operator switches it on.

BLOCKS = "blocks"
"""Steps of new segments are stored in blocks (`db.steps.blocks`)."""
KNOWN = frozenset((BLOCKS,))
"""A release may not use a store that has another feature: see `db.store.features`."""


def is_enabled(session: Session, name: str) -> bool:
    return session.get(Feature, name) is not None


def enable(session: Session, name: str, *, now: float) -> bool:
    """Switch it on: whether it was off."""
    if is_enabled(session, name):
        return False
    session.add(Feature(name=name, enabled_at=now))
    session.flush()
    return True


# Compatibility: whether a release may use a store whose schema is newer than its own.
#
# Each migration names the oldest revision whose release may use the store afterwards, `compatible_from`. The store has
# the newest of those, so that a release which does not know these migrations can tell whether it may go on.

FIRST_STATED = "0025"
"""The revision that brings the table; every later migration has a `compatible_from`."""


class SchemaCompatibility(Base):
    """One row: from which revision on a release may use the store."""

    __tablename__ = "schema_compatibility"

    compatible_from: Mapped[str] = mapped_column(sa.String(32), primary_key=True)


def note(ctx: MigrationContext, step: object, heads: Collection[Any], run_args: Mapping[str, Any]) -> None:
    """Store what the schema needs after a migration, in its transaction (alembic's `on_version_apply`)."""
    assert ctx.script is not None
    assert ctx.connection is not None
    needed = needed_by(ctx.script, next(iter(heads), None))
    if needed is not None:
        ctx.connection.execute(sa.delete(SchemaCompatibility))
        ctx.connection.execute(sa.insert(SchemaCompatibility).values(compatible_from=needed))


def needed_by(script: ScriptDirectory, revision: str | None) -> str | None:
    """The oldest revision whose release may use a schema at `revision`; None where the schema cannot store it."""
    if revision is None:
        return None
    passed = [one.revision for one in script.iterate_revisions(revision, "base")]
    if FIRST_STATED not in passed:
        return None
    stated = passed[: passed.index(FIRST_STATED) + 1]
    # What does not say from which revision on it is compatible is so with itself alone.
    return max(str(getattr(script.get_revision(one).module, "compatible_from", one)) for one in stated)


def misfit(connection: sa.Connection, script: ScriptDirectory, current: str) -> str | None:
    """Why this release may not use a schema at `current`, which it does not know, in one sentence; None: it may."""
    known, newest = {one.revision for one in script.walk_revisions()}, script.get_current_head()
    has_table = sa.inspect(connection).has_table(SchemaCompatibility.__tablename__)
    needed = connection.scalar(sa.select(SchemaCompatibility.compatible_from)) if has_table else None
    if needed not in known:
        return (
            f"the schema is at {current}, for releases from {needed or current} on, and this one is of {newest};"
            " install the release that upgraded the store"
        )
    unknown = sorted(set(connection.scalars(sa.select(Feature.name))) - KNOWN)
    return (
        f"the store has the feature {unknown[0]}, which this release does not know; install a newer one"
        if unknown
        else None
    )
