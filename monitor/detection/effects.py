"""Results of the detection engine, as immutable values, and the state machines of incidents and interventions.

Each machine is one literal table. Illegal events raise `IllegalTransition` and change nothing; a terminal state has no
row in its table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from lossguard.vocabulary.states import IncidentKind, IncidentState, InterventionState, OrderKind, Outcome


@dataclass(frozen=True, slots=True)
class Proposal:
    """Proposed action on an incident where the policy does not act: in observe mode, or in a run that only reports."""

    kind: OrderKind
    decided_step: int
    rewind_to: int | None
    skip_from: int | None
    skip_to: int | None


@dataclass(frozen=True, slots=True)
class Incident:
    """A stretch of steps on which something went wrong. Values and band are in the signal's own unit."""

    number: int
    kind: IncidentKind
    state: IncidentState
    signal: str
    onset_step: int
    detected_step: int
    peak_step: int
    peak_value: float
    end_step: int | None
    score: float
    """The largest evidence, in alarm thresholds: 1.0 is the threshold itself."""
    expected: float
    """Value of the signal that was expected at detection."""
    scale: float
    """One robust standard deviation of the signal at detection."""
    outcome: Outcome
    reasons: list[str] = field(default_factory=list)
    proposal: Proposal | None = None
    """The first one; None where the policy waited, or gave orders."""
    lasting_probability: float | None = None
    """Probability that it does not recover by itself, until the policy acts. None: too little is known."""
    superseded_by: int | None = None
    """Number of the incident as which the trouble goes on, where this one ended because that one began."""


@dataclass(frozen=True, slots=True)
class Intervention:
    """The response to an incident: restore step `rewind_to` and skip batches [skip_from, skip_to) from then on."""

    number: int
    incident: int | None
    kind: OrderKind
    state: InterventionState
    attempt: int
    rewind_to: int | None
    skip_from: int | None
    skip_to: int | None
    lr_scale: float | None
    decided_step: int
    verify_at: int | None
    reasons: list[str] = field(default_factory=list)
    site_start: int | None = None
    """The onset of the trouble that it is to get past."""
    site_end: int | None = None
    """The last step at which a further onset counts as a recurrence; a later one is an incident of its own."""
    remedies: list[str] = field(default_factory=list)
    """The remedies that are switched on with it."""
    compared: bool | None = None
    """True if the trainer compares the samples that it trains on with the skipped ones; None: it has not said so."""
    mode: str | None = None
    """The mode of the policy that decided on it; None: an operator did."""
    refused: bool = False
    """True if the trainer would not carry it out: that says nothing about the checkpoint."""


@dataclass(frozen=True, slots=True)
class IncidentChanged:
    incident: Incident


@dataclass(frozen=True, slots=True)
class InterventionChanged:
    intervention: Intervention
    choices: Sequence[dict[str, Any]] = ()
    """Once, with the decision: the treatments that were compared (see `interventions.decision.Choice`)."""


@dataclass(frozen=True, slots=True)
class Outlier:
    """One row out of band, followed by a row in band: most likely a hard batch. No incident."""

    step: int
    signal: str
    value: float
    score: float


Effect = IncidentChanged | InterventionChanged | Outlier


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
INTERVENTION_TERMINAL = frozenset(InterventionState) - INTERVENTION_TRANSITIONS.keys()

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
