"""What an order says of itself besides what to do: what it is about, until when it counts, who approved it, and that it
is the collector's.

It is written and signed in the transaction that decides it, and never again: a row that somebody else has put into the
store stays unsigned.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import queries
from db.models import Intervention, Order, Run, Segment
from lossguard.vocabulary.orders import sign, signed_text
from lossguard.vocabulary.states import OrderKind

FIELDS = (
    "id", "key", "kind", "incident", "rewind_to", "skip_from", "skip_to", "lr_scale", "remedies", "reason",
    "segment", "step", "expires_at", "expires_step", "approved_by", "signature",
)  # fmt: skip
"""What the trainer needs of an order."""
OPTION = "lossguard_order_terms"
"""Execution option of the collector's engine: the terms of its orders."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderTerms:
    """The same for all orders of a collector."""

    seconds: float = 3600.0
    """From the decision or the approval, after which an order is refused."""
    steps: int = 10_000
    """The same in steps of the run."""
    key: str | None = field(default=None, repr=False)
    """With which orders are signed; None: they are not."""

    def attached_to(self, engine: sa.Engine) -> sa.Engine:
        """The engine whose sessions issue orders on these terms."""
        return engine.execution_options(**{OPTION: self})


def of(session: Session) -> OrderTerms:
    """The terms on which this session issues orders; the defaults where nobody has set others."""
    bind = session.get_bind()
    terms = bind.get_execution_options().get(OPTION)
    return terms if isinstance(terms, OrderTerms) else OrderTerms()


def columns(
    session: Session, run: Run, intervention: Intervention, *, segment: int, approved_by: str | None, now: float
) -> dict[str, Any]:
    """What an order that is decided on `segment` holds of it.

    A release only ends a hold: it expires where it is signed, so that a recorded one ends no later hold.
    """
    terms, found = of(session), session.get(Segment, (run.pk, segment))
    if found is None:
        return {"approved_by": approved_by}
    step = _seen_step(session, run, found)
    about = {"segment": found.key, "step": step, "approved_by": approved_by}
    if intervention.kind == OrderKind.RELEASE and terms.key is None:
        return about
    return about | {"expires_at": float(math.ceil(now + terms.seconds)), "expires_step": step + terms.steps}


def signer(session: Session, run: Run) -> Callable[[Order], str] | None:
    """What signs an order to this run; None without a key."""
    key = of(session).key
    return None if key is None else lambda order: sign(signed_text(to_wire(order)), run.id, key)


def to_wire(order: Order) -> dict[str, Any]:
    """An order as the trainer gets it."""
    return {name: getattr(order, name) for name in FIELDS} | {"remedies": order.remedies or []}


def _seen_step(session: Session, run: Run, segment: Segment) -> int:
    """The newest step, or declared change, of the segment that the store knows."""
    last = segment.last_step
    step = max(0, (segment.fork_step or 0) - 1) if last is None else last
    declared = queries.newest_event_step(session, run=run, segment=segment.number)
    return step if declared is None else max(step, declared)
