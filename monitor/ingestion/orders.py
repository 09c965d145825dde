"""Orders: their terms and signature, the question before one, and the checks of what a trainer says that it did.

An order says what it is about, until when it counts and who approved it. It is written and signed in the transaction
that decides it, and never again: a row that somebody else has put into the store stays unsigned.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import queries
from db.models import Intervention, Order, Run, Segment
from db.records import preflights
from lossguard.vocabulary.orders import Order as WireOrder
from lossguard.vocabulary.orders import sign, signed_text
from lossguard.vocabulary.protocol import ANSWERS_PREFLIGHT
from lossguard.vocabulary.states import OrderKind
from monitor.detection.settings import Mode
from monitor.schemas import PreflightIn

FIELDS = tuple(each.name for each in fields(WireOrder) if each.compare)
"""Fields of an order that travel."""
OPTION = "lossguard_order_terms"
"""Execution option of the collector's engine: the terms of its orders."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderTerms:
    seconds: float = 3600.0
    """Seconds from the decision or the approval after which an order is refused."""
    steps: int = 10_000
    """Steps of the run after which an order is refused."""
    key: str | None = field(default=None, repr=False)
    """Key that signs orders; None: they are not signed."""

    def attached_to(self, engine: sa.Engine) -> sa.Engine:
        """The engine whose sessions issue orders on these terms."""
        return engine.execution_options(**{OPTION: self})


def terms_of(session: Session) -> OrderTerms:
    """The terms on which this session issues orders; the defaults where nobody has set others."""
    terms = session.get_bind().get_execution_options().get(OPTION)
    return terms if isinstance(terms, OrderTerms) else OrderTerms()


def columns(
    session: Session, run: Run, intervention: Intervention, *, segment: int, approved_by: str | None, now: float
) -> dict[str, Any]:
    """Return the columns of an order that say on which `segment` and step it was decided, and until when it counts.

    A release only ends a hold: it expires where it is signed, so that a recorded one ends no later hold.
    """
    terms, found = terms_of(session), session.get(Segment, (run.pk, segment))
    if found is None:
        return {"approved_by": approved_by}
    # The newest step, or declared change, of the segment that the store knows.
    step = max(0, (found.fork_step or 0) - 1) if found.last_step is None else found.last_step
    step = max(step, queries.newest_event_step(session, run=run, segment=segment) or 0)
    about = {"segment": found.key, "step": step, "approved_by": approved_by}
    if intervention.kind == OrderKind.RELEASE and terms.key is None:
        return about
    return about | {"expires_at": float(math.ceil(now + terms.seconds)), "expires_step": step + terms.steps}


def signer(session: Session, run: Run) -> Callable[[Order], str] | None:
    """Return the function that signs an order to this run; None without a key."""
    key = terms_of(session).key
    return None if key is None else lambda order: sign(signed_text(to_wire(order)), run.id, key)


def to_wire(order: Order) -> dict[str, Any]:
    """An order as the trainer gets it."""
    return {name: getattr(order, name) for name in FIELDS} | {"remedies": order.remedies or []}


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


# Questions to a trainer while one of its rollbacks waits for approval, sent with the answer to a report

ASK_SECONDS = 5.0
"""An answer that is older is asked for again."""


@dataclass(frozen=True, slots=True)
class ProposedRollback:
    """A proposed rollback, and how often the trainer has answered about it."""

    intervention: int
    """Id of the intervention."""
    number: int
    changes: dict[str, Any]
    """Changes that the rollback would make, as the trainer is asked about them."""
    num_answers: int = 0
    answered_at: float | None = None

    @property
    def question(self) -> str:
        """Id of the next question."""
        return f"{self.intervention}-{self.num_answers + 1}"

    def to_wire(self, now: float) -> dict[str, Any] | None:
        """The question as the trainer gets it; None while the last answer is new."""
        if self.answered_at is not None and 0 <= now - self.answered_at < ASK_SECONDS:
            return None
        return {"id": self.question, **self.changes}


def proposal(session: Session, run: Run, mode: Mode) -> ProposedRollback | None:
    """The question for this run's trainer; None if it does not answer, and of a run that is only observed."""
    is_asked = ANSWERS_PREFLIGHT in run.capabilities and mode is not Mode.OBSERVE
    row = preflights.to_ask(session, run=run) if is_asked else None
    if row is None or row.rewind_to is None:
        return None
    changes = {"step": row.rewind_to, "skip_from": row.skip_from, "skip_to": row.skip_to, "lr_scale": row.lr_scale}
    known = preflights.answer_to(session, intervention=row)
    answered = () if known is None else (known.num_answers, known.answered_at)
    return ProposedRollback(row.id, row.number, changes, *answered)


def take_preflight(
    session: Session, run: Run, asked: ProposedRollback | None, answer: PreflightIn, now: float
) -> ProposedRollback | None:
    """Keep the answer if it is to the present question. Late ones, of a spool that waited, are dropped."""
    if asked is None or answer.id != asked.question:
        return asked
    terms = terms_of(session)
    content = answer.model_dump() | {"order_seconds": terms.seconds, "order_steps": terms.steps}
    count = preflights.save_answer(session, run=run, intervention=asked.number, answer=content, now=now)
    return replace(asked, num_answers=count, answered_at=now)
