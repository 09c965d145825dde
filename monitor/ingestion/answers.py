"""A trainer answers an order: it was executed, or it failed; and it says which arms it has tried."""

import hmac
import logging
from collections.abc import Sequence

from sqlalchemy.orm import Session

from db import commands, queries
from db.models import Order, Run
from db.records import access, arms
from lossguard.vocabulary.states import OrderKind, OrderState, Refusal
from lossguard.vocabulary.wire import ArmsTried
from monitor.detection import DetectionEngine, Effect
from monitor.ingestion import lease, orders, runs
from monitor.ingestion.lease import Claim
from monitor.ingestion.run_state import detection_state
from monitor.problems import Problem, unknown
from monitor.schemas import AnswerIn

log = logging.getLogger(__name__)


def take_answer(session: Session, order_id: int, answer: AnswerIn, *, claim: Claim, who: str) -> Order:
    """Record what the trainer did about an order, and in the audit trail who says so. The same answer again changes
    nothing.

    Raises Problem 404 for an unknown order, 409 when the answer has not the order's key, does not fit the order, or
    comes from a process that does not hold the lease of the run.
    """
    order = session.get(Order, order_id)
    if order is None:
        raise unknown("order", order_id)
    run = session.get_one(Run, order.run_pk)
    runs.lock(session, run.id)
    session.refresh(order)
    try:
        if not hmac.compare_digest(answer.key.encode(), order.key.encode()):  # only its receiver knows the key
            raise Problem(409, "this is another order", f"order {order.id} has a different key", ["body", "key"])
        if order.state in (OrderState.APPLIED, OrderState.FAILED):
            return order
        lease.check_holder(run, claim)
        _check_figures(session, run, order, answer)
    except Problem as problem:  # nothing is stored of it, so the log has to say so
        log.warning("refused: the answer of %r to order %d of the run %r: %s", who, order.id, run.id, problem)
        raise
    values = answer.model_dump(exclude={"state", "key", "compared"})
    commands.answer_order(session, order=order, state=OrderState(answer.state), now=claim.now, **values)
    detection_state.update(session, run, lambda engine: _apply(engine, order.intervention, answer), now=claim.now)
    process = None if claim.writer is None else claim.writer.process
    details = {"order": order.id, "kind": order.kind, "process": process, **answer.model_dump(exclude={"key"})}
    access.record(session, who=who, action="answer", run=run.id, details=details, now=claim.now)
    return order


def _check_figures(session: Session, run: Run, order: Order, answer: AnswerIn) -> None:
    if answer.state == "failed":
        return
    figures = (answer.rewound_to, answer.skip_from, answer.skip_to)
    if order.kind != OrderKind.ROLLBACK and figures != (None, None, None):
        raise _misfit(f"order {order.id} is a {order.kind}, which goes back to no step and skips no batches", "state")
    segment = queries.segment_of_order(session, order=order)
    if answer.rewound_to is not None:
        if segment is not None and segment.fork_step != answer.rewound_to:
            why = f"segment {segment.number}, which carries order {order.id} out, begins at step {segment.fork_step}"
            raise _misfit(why, "rewound_to")
        if segment is None and (problem := orders.bad_rewind(run, order, answer.rewound_to)) is not None:
            raise _misfit(problem, "rewound_to")
    if (problem := orders.bad_skip(order, answer.skip_from, answer.skip_to)) is not None:
        raise _misfit(problem, "skip_from")


def _misfit(detail: str, field: str) -> Problem:
    return Problem(409, "the answer does not fit; nothing was changed", detail, ["body", field])


def _apply(engine: DetectionEngine, intervention: int, answer: AnswerIn) -> list[Effect]:
    try:
        if OrderState(answer.state) is OrderState.FAILED:
            # A refusal that only a later release knows counts as any failure.
            refusal = Refusal(answer.refusal) if answer.refusal in tuple(Refusal) else None
            return engine.order_failed(intervention, answer.detail, refusal)
        figures = answer.model_dump(include={"rewound_to", "skip_from", "skip_to", "compared"})
        return engine.order_applied(intervention, **figures)
    except ValueError as error:
        raise _misfit(str(error), "state") from None


def take_arms(session: Session, run: Run, engine: DetectionEngine, reported: Sequence[ArmsTried]) -> None:
    """Store the arms that were tried. Those of an order that this store does not know are left out."""
    interventions = {each.number: each for each in queries.interventions(session, run=run)}
    for tried in reported:
        order = session.get(Order, tried.order) if tried.order < 2**31 else None
        if order is None or order.run_pk != run.pk:
            continue
        row = interventions[order.intervention]
        incident = None if row.incident is None else queries.incident_numbered(session, run=run, number=row.incident)
        if incident is not None:
            depth = max(0, incident.onset_step - tried.rewind_to)
            known = {"kind": incident.kind, "attempt": row.attempt, "tier": tried.tier, "depth": depth}
            details = {each.arm.value: {**each.to_details(), **known} for each in tried.results}
            arms.save(session, run=run, incident=incident.number, intervention=row.number, arms=details)
    detection_state.give_records(session, run, engine)
