"""A trainer answers an order: it was executed, or it failed."""

from sqlalchemy.orm import Session

from db import commands
from db.models import Order, Run
from lossguard.states import OrderState
from monitor.detection import DetectionEngine, Effect
from monitor.ingestion import detection_state, runs
from monitor.problems import Problem, unknown
from monitor.schemas import AnswerIn


def take_answer(session: Session, order_id: int, answer: AnswerIn, *, now: float) -> Order:
    """Record what the trainer did about an order. The same answer again changes nothing.

    Raises Problem 404 for an unknown order, 409 when the answer is for another order or does not fit this one.
    """
    order = session.get(Order, order_id)
    if order is None:
        raise unknown("order", order_id)
    if answer.key is not None and answer.key != order.key:
        raise Problem(409, "this is another order", f"order {order_id} has a different key", ["body", "key"])
    run = session.get_one(Run, order.run_pk)
    runs.lock(session, run.id)
    session.refresh(order)
    values = answer.model_dump(exclude={"state", "key"})
    if commands.answer_order(session, order=order, state=OrderState(answer.state), now=now, **values):
        detection_state.update(session, run, lambda engine: _apply(engine, order.intervention, answer), now=now)
    return order


def _apply(engine: DetectionEngine, intervention: int, answer: AnswerIn) -> list[Effect]:
    try:
        if OrderState(answer.state) is OrderState.FAILED:
            return engine.order_failed(intervention, answer.detail)
        rewound_to, skip_from, skip_to = answer.rewound_to, answer.skip_from, answer.skip_to
        return engine.order_applied(intervention, rewound_to=rewound_to, skip_from=skip_from, skip_to=skip_to)
    except ValueError as error:
        raise Problem(409, "the answer does not fit; nothing was changed", str(error), ["body", "state"]) from None
