"""Ways to store that every process of a store must know. The caller owns the transaction.

A new one is off in a store that an earlier release may still write to, until an operator switches it on.
"""

from sqlalchemy.orm import Session

from db.models import Feature

BLOCKS = "blocks"
"""Steps of new segments are stored in blocks (`db.steps.blocks`)."""
KNOWN = frozenset((BLOCKS,))
"""A release may not use a store that has another feature: see `db.compatibility`."""


def is_enabled(session: Session, name: str) -> bool:
    return session.get(Feature, name) is not None


def enable(session: Session, name: str, *, now: float) -> bool:
    """Switch it on: whether it was off."""
    if is_enabled(session, name):
        return False
    session.add(Feature(name=name, enabled_at=now))
    session.flush()
    return True
