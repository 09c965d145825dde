"""The state machines of incidents and interventions: one literal table each, and one `advance`.

Illegal events raise `IllegalTransition` and change nothing; a terminal state has no row in its table.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from lossguard.vocabulary.states import IncidentState, InterventionState


class IllegalTransition(ValueError):
    """The event is not possible in this state."""

    def __init__(self, state: StrEnum, event: StrEnum) -> None:
        super().__init__(f"{type(state).__name__} {state.value!r} has no transition for {event.value!r}")
        self.state, self.event = state, event


class IncidentEvent(StrEnum):
    WORSEN = "worsen"  # the loss follows its precursor, or a spike becomes a divergence
    TREAT = "treat"  # an intervention was ordered
    RELAPSE = "relapse"  # the order failed: the incident needs another decision
    CLOSE = "close"  # back in band, accepted as the new level, or verified


class InterventionEvent(StrEnum):
    APPROVE = "approve"  # by an operator, or by the policy in auto mode
    REJECT = "reject"  # by an operator
    ORDER = "order"  # the order goes to the trainer
    APPLY = "apply"  # the trainer executed it
    FAIL = "fail"  # the trainer could not execute it
    VERIFY = "verify"  # it worked
    RECUR = "recur"  # the incident came back
    WITHDRAW = "withdraw"  # it is no longer needed, or another one takes its place
    REPLACE = "replace"  # an operator's order takes the place of what the trainer has executed
    RELEASE = "release"  # an operator ended the hold


INCIDENT_TRANSITIONS: Mapping[IncidentState, Mapping[IncidentEvent, IncidentState]] = {
    IncidentState.WARNING: {
        IncidentEvent.WORSEN: IncidentState.OPEN,
        IncidentEvent.TREAT: IncidentState.TREATED,
        IncidentEvent.CLOSE: IncidentState.CLOSED,
    },
    IncidentState.OPEN: {
        IncidentEvent.WORSEN: IncidentState.OPEN,
        IncidentEvent.TREAT: IncidentState.TREATED,
        IncidentEvent.CLOSE: IncidentState.CLOSED,
    },
    IncidentState.TREATED: {
        IncidentEvent.WORSEN: IncidentState.TREATED,
        IncidentEvent.TREAT: IncidentState.TREATED,
        IncidentEvent.RELAPSE: IncidentState.OPEN,
        IncidentEvent.CLOSE: IncidentState.CLOSED,
    },
}
INCIDENT_TERMINAL = frozenset({IncidentState.CLOSED})

INTERVENTION_TRANSITIONS: Mapping[InterventionState, Mapping[InterventionEvent, InterventionState]] = {
    InterventionState.PROPOSED: {
        InterventionEvent.APPROVE: InterventionState.APPROVED,
        InterventionEvent.REJECT: InterventionState.REJECTED,
        InterventionEvent.WITHDRAW: InterventionState.WITHDRAWN,
    },
    InterventionState.APPROVED: {
        InterventionEvent.ORDER: InterventionState.ORDERED,
        InterventionEvent.WITHDRAW: InterventionState.WITHDRAWN,
    },
    InterventionState.ORDERED: {
        InterventionEvent.APPLY: InterventionState.APPLIED,
        InterventionEvent.FAIL: InterventionState.FAILED,
        InterventionEvent.WITHDRAW: InterventionState.WITHDRAWN,
    },
    InterventionState.APPLIED: {
        InterventionEvent.VERIFY: InterventionState.VERIFIED,
        InterventionEvent.RECUR: InterventionState.RECURRED,
        InterventionEvent.WITHDRAW: InterventionState.WITHDRAWN,
        InterventionEvent.REPLACE: InterventionState.REPLACED,
        InterventionEvent.RELEASE: InterventionState.RELEASED,
    },
}
INTERVENTION_TERMINAL = frozenset(
    {
        InterventionState.VERIFIED,
        InterventionState.RECURRED,
        InterventionState.FAILED,
        InterventionState.REJECTED,
        InterventionState.WITHDRAWN,
        InterventionState.REPLACED,
        InterventionState.RELEASED,
    }
)

State = TypeVar("State", IncidentState, InterventionState)


def advance(state: State, event: IncidentEvent | InterventionEvent) -> State:
    """The state after `event`; raises `IllegalTransition`."""
    table: Mapping[object, Mapping[object, State]] = (
        INCIDENT_TRANSITIONS if isinstance(state, IncidentState) else INTERVENTION_TRANSITIONS  # type: ignore[assignment]
    )
    try:
        return table[state][event]
    except KeyError:
        raise IllegalTransition(state, event) from None
