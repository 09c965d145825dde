"""What the state of an intervention and its order means: asked of a row, and as SQL where many rows are counted."""

import sqlalchemy as sa

from db.models import Intervention, Order
from lossguard.states import InterventionState, OrderKind, OrderState


def is_proposed(intervention: Intervention) -> bool:
    """Whether an operator has to approve or reject it."""
    return intervention.state == InterventionState.PROPOSED


def is_holding(intervention: Intervention) -> bool:
    """Whether it is a hold that stops the run now, until an operator releases it."""
    return intervention.kind == OrderKind.HOLD and intervention.state == InterventionState.APPLIED


def needs_a_person(intervention: Intervention) -> bool:
    """Whether it waits for the decision of an operator."""
    return is_proposed(intervention) or is_holding(intervention)


def needs_a_person_in_sql() -> sa.ColumnElement[bool]:
    """`needs_a_person` as a condition of a query."""
    is_proposed = Intervention.state == InterventionState.PROPOSED
    is_holding = sa.and_(Intervention.kind == OrderKind.HOLD, Intervention.state == InterventionState.APPLIED)
    return sa.or_(is_proposed, is_holding)


def rewind_target(intervention: Intervention, order: Order | None) -> int | None:
    """The step that a rollback goes back to: the one that the trainer reported, before that the planned one.

    They differ when the planned checkpoint was damaged. None for what is not a rollback.
    """
    if order is None or order.rewound_to is None:
        return intervention.rewind_to
    return order.rewound_to


def rewound_step(intervention: Intervention, order: Order | None) -> int | None:
    """The step that the trainer went back to; None when it did not (yet)."""
    if order is None or order.state != OrderState.APPLIED:
        return None
    return rewind_target(intervention, order)
