"""The terms of an order, its signature, and the checks of what a trainer says that it did.

An order says what it is about, until when it counts and who approved it. It is written and signed in the transaction
that decides it, and never again: a row that somebody else has put into the store stays unsigned.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import queries
from db.models import Intervention, Order, Run, Segment
from lossguard.vocabulary import orders
from lossguard.vocabulary.orders import sign, signed_text
from lossguard.vocabulary.states import OrderKind

FIELDS = tuple(each.name for each in fields(orders.Order) if each.compare)
"""Fields of an order that travel."""
OPTION = "lossguard_order_terms"
"""Execution option of the collector's engine: the terms of its orders."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderTerms:
    """Terms of all orders of a collector."""

    seconds: float = 3600.0
    """Seconds from the decision or the approval after which an order is refused."""
    steps: int = 10_000
    """Steps of the run after which an order is refused."""
    key: str | None = field(default=None, repr=False)
    """Key that signs orders; None: they are not signed."""

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
    """Return the columns of an order that say on which `segment` and step it was decided, and until when it counts.

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
    """Return the function that signs an order to this run; None without a key."""
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


# Whether what a trainer says about an order can be true: a sentence that says why not, or None

MAX_WIDER = 2
"""A trainer may skip more batches than ordered, such as whole shards, but at most so many times as many."""


def bad_rewind(run: Run, order: Order, step: int) -> str | None:
    """A rollback goes back to the ordered step, or to an older checkpoint if that one was damaged."""
    if order.rewind_to is None or step > order.rewind_to:
        return f"order {order.id} goes back to step {order.rewind_to}, and step {step} is not at or before it"
    if step != order.rewind_to and step not in run.restorable_steps:
        return f"step {step} is neither the step {order.rewind_to} of order {order.id} nor a restorable one"
    return None


def bad_skip(order: Order, skip_from: int | None, skip_to: int | None) -> str | None:
    """The skipped batches are the ordered ones, or a few more around them; none if the trainer says nothing of them."""
    if skip_from is None and skip_to is None:
        return None
    given = f"the batches [{skip_from}, {skip_to})"
    if order.skip_from is None or order.skip_to is None:
        return f"order {order.id} skips no batches, and {given} were skipped"
    if skip_from is None or skip_to is None or skip_from > order.skip_from or skip_to < order.skip_to:
        return f"{given} lack some of those that order {order.id} skips: [{order.skip_from}, {order.skip_to})"
    if skip_to - skip_from > MAX_WIDER * (order.skip_to - order.skip_from):
        return f"{given} are more than {MAX_WIDER} times as many as order {order.id} skips"
    return None
