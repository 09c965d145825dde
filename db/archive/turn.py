"""One process at a time archives, brings back, or removes files of a store: a lease by the clock of the database."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.store import leader
from db.store.engine import writing

ROLE = "archive"
LEASE_SECONDS = 120.0
"""Duration of the lease, which every file renews: longer than its upload. A killed process blocks others as long."""


class Busy(RuntimeError):
    """Another process has the turn; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class ArchiveLease:
    """The lease of the archive, which is ours as long as it is renewed in time."""

    holder: str

    def renew(self, session: Session) -> None:
        """Keep it; it cannot be lost before the transaction ends. Raises Busy when another process has it."""
        if leader.claim(session, role=ROLE, holder=self.holder, seconds=LEASE_SECONDS) is None:
            raise Busy(
                "another process archives steps of this store, or was killed less than "
                f"{LEASE_SECONDS / 60:.0f} minutes ago; try again then"
            )


@contextmanager
def taken(engine: sa.Engine) -> Iterator[ArchiveLease]:
    """The turn for the duration of the block. Raises Busy."""
    turn = ArchiveLease(secrets.token_hex(8))
    with writing(engine) as session:
        turn.renew(session)
    try:
        yield turn
    finally:
        with writing(engine) as session:
            if lease := leader.claim(session, role=ROLE, holder=turn.holder, seconds=1.0):
                leader.resign(session, lease)
