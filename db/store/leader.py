"""Lease with a term for tasks that only one of several collectors may do, by the clock of the database.

The clocks of the collectors need not agree. A term never comes back: a leader that has lost its lease cannot write
afterwards, because it asks for its term in the transaction in which it writes (`holds`).
"""

from dataclasses import dataclass

from sqlalchemy.orm import Mapped, Session, mapped_column

from db.models import Base, BigInt, Str32, Str64
from db.store import bulk
from db.store.engine import dialect_of

BREAK_SECONDS = 30.0
"""Seconds without any leader that are a break: nobody knows what happened meanwhile."""


class Leader(Base):
    """The collector that has a role, or had it last. All times are unix seconds by the clock of the database."""

    __tablename__ = "leaders"

    role: Mapped[Str32] = mapped_column(primary_key=True)
    holder: Mapped[Str64]
    """A random id of the collector process."""
    term: Mapped[BigInt]
    """Rises with every change of the holder, and when a holder comes back after its lease had run out."""
    until: Mapped[float]
    """Time at which the lease ends, unless it is renewed before."""
    since: Mapped[float]
    """Since when there has been a leader without a break."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The role is ours."""

    role: str
    holder: str
    term: int
    since: float
    now: float
    """Time at which it was taken or renewed, by the clock of the database."""


def now(session: Session) -> float:
    """Unix seconds by the clock of the database."""
    ((seconds,),) = bulk.read(session, f"SELECT {_clock(session)}", ())
    return float(seconds)


def is_free(session: Session, *, role: str, holder: str) -> bool:
    """True if `holder` could take or renew the lease of the role: a look that locks nothing."""
    statement = f"SELECT holder, until < {_clock(session)} FROM leaders WHERE role = ?"
    return all(other == holder or ended for other, ended in bulk.read(session, statement, (role,)))


def claim(session: Session, *, role: str, holder: str, seconds: float) -> Lease | None:
    """Take the lease of the role for `seconds`, or renew it; None while another holder has it."""
    clock = _clock(session)
    statement = (
        f"INSERT INTO leaders (role, holder, term, until, since) VALUES (?, ?, 1, {clock} + ?, {clock})"
        " ON CONFLICT (role) DO UPDATE SET"
        f" term = leaders.term + CASE WHEN {_is_ours(clock)} THEN 0 ELSE 1 END,"
        f" since = CASE WHEN leaders.until + ? < {clock} THEN {clock} ELSE leaders.since END,"
        " holder = excluded.holder, until = excluded.until"
        f" WHERE {_is_ours(clock)} OR leaders.until < {clock}"
        f" RETURNING term, since, {clock}"
    )
    rows = bulk.read(session, statement, (role, holder, seconds, BREAK_SECONDS))
    return Lease(role, holder, rows[0][0], rows[0][1], float(rows[0][2])) if rows else None


def _is_ours(clock: str) -> str:
    return f"(leaders.holder = excluded.holder AND leaders.until >= {clock})"


def holds(session: Session, lease: Lease) -> bool:
    """True if the lease is still ours; nobody else takes it before the transaction ends."""
    lock = dialect_of(session.get_bind()).row_lock
    statement = f"SELECT 1 FROM leaders WHERE role = ? AND holder = ? AND term = ? AND until >= {_clock(session)}{lock}"
    return bool(bulk.read(session, statement, (lease.role, lease.holder, lease.term)))


def resign(session: Session, lease: Lease) -> None:
    """End the lease, so that the next leader need not wait."""
    statement = f"UPDATE leaders SET until = {_clock(session)} - 0.001 WHERE role = ? AND holder = ? AND term = ?"
    bulk.run(session, statement, (lease.role, lease.holder, lease.term))


def _clock(session: Session) -> str:
    return dialect_of(session.get_bind()).clock
