"""Meanings of the states of runs and interventions: asked of a row, and as SQL where many rows are counted."""

import sqlalchemy as sa

from db.models import Incident, Intervention, Order, Run
from lossguard.vocabulary.protocol import NO_HEARTBEAT
from lossguard.vocabulary.states import NEED_A_PERSON, IncidentState, InterventionState, OrderKind, OrderState, RunState

# Interventions and their orders.


def is_proposed(intervention: Intervention) -> bool:
    """True if an operator has to approve or reject it."""
    return intervention.state == InterventionState.PROPOSED


def is_holding(intervention: Intervention) -> bool:
    """True if it is a hold that stops the run, until an operator releases it or the run ends."""
    return intervention.kind == OrderKind.HOLD and intervention.state == InterventionState.APPLIED


def needs_a_person_in_sql(is_running: sa.ColumnElement[bool] = Run.state == RunState.RUNNING) -> sa.ColumnElement[bool]:
    """A proposal, which an operator has to approve or reject, or a hold of a running run. One that has ended is not on
    hold any more: a restart withdraws its hold."""
    is_proposed = Intervention.state == InterventionState.PROPOSED
    is_holding = sa.and_(Intervention.kind == OrderKind.HOLD, Intervention.state == InterventionState.APPLIED)
    # A query looks up the runs of these few alone.
    return sa.and_(sa.or_(is_proposed, is_holding), sa.or_(is_proposed, is_running))


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


# Silence: runs that count as running but have stopped reporting. `kill -9` leaves no other trace.

SILENT = "silent"
"""Shown instead of the state of a run that is silent."""
SILENT_SECONDS = 60.0
"""The SDK reports every two seconds: a run without a report for this long was killed, or cannot reach the collector."""
QUIET_SECONDS = 600.0
"""Seconds without a report after which a run without heartbeats is silent: it reports when it has a row."""


def is_silent(run: Run, now: float) -> bool:
    """True if the run is silent at a time (unix seconds)."""
    patience = QUIET_SECONDS if NO_HEARTBEAT in run.capabilities else SILENT_SECONDS
    return run.state == RunState.RUNNING and now - run.last_report_at > patience


def has_no_heartbeat() -> sa.ColumnElement[bool]:
    """Return SQL that is true for a run whose client reports only when there is something to report."""
    return sa.cast(Run.capabilities, sa.String).like(f'%"{NO_HEARTBEAT}"%')


def is_silent_in_sql(now: float) -> sa.ColumnElement[bool]:
    """Return `is_silent` as a condition of a query."""
    patience = sa.case((has_no_heartbeat(), QUIET_SECONDS), else_=SILENT_SECONDS)
    return sa.and_(Run.state == RunState.RUNNING, sa.type_coerce(Run.last_report_at, sa.Float) < now - patience)


def stopped_before(now: float, *, since: float = 0.0) -> float:
    """The reports of a running run have stopped where the last one came before this time (unix seconds).

    A silence counts from `since` on at the earliest: before it nobody took reports.
    """
    time = now - QUIET_SECONDS
    return time if since <= time else 0.0


def has_stopped(run: Run, before: float) -> bool:
    """True if no report of the run is awaited: it has ended, or its reports have stopped (see `stopped_before`)."""
    return run.state != RunState.RUNNING or run.last_report_at < before


def has_stopped_in_sql(before: float) -> sa.ColumnElement[bool]:
    """Return `has_stopped` as a condition of a query."""
    return sa.or_(Run.state != RunState.RUNNING, sa.type_coerce(Run.last_report_at, sa.Float) < before)


# Lists.

NEEDS_A_PERSON = "needs a person"
SHOWN_STATES = (
    NEEDS_A_PERSON,
    RunState.RUNNING.value,
    SILENT,
    RunState.FINISHED.value,
    RunState.INTERRUPTED.value,
    RunState.FAILED.value,
)
"""States of runs in lists: each run has the first of these that holds."""


def is_unanswered(is_running: sa.ColumnElement[bool] = Run.state == RunState.RUNNING) -> sa.ColumnElement[bool]:
    """An open incident of a running run that only a person ends: no policy answers its kind. A run that has ended asks
    for nothing any more."""
    return sa.and_(Incident.state == IncidentState.OPEN, Incident.kind.in_(NEED_A_PERSON), is_running)


def run_needs_a_person() -> sa.ColumnElement[bool]:
    """Return SQL that is true if something of the run waits for an operator: see `db.runs.overview.Tally.waiting`."""
    asked = sa.select(Intervention.run_pk).join(Run, Run.pk == Intervention.run_pk).where(needs_a_person_in_sql())
    left = sa.select(Incident.run_pk).join(Run, Run.pk == Incident.run_pk).where(is_unanswered())
    return sa.or_(Run.pk.in_(asked), Run.pk.in_(left))


def is_shown_as(state: str, now: float) -> sa.ColumnElement[bool]:
    """Return SQL that is true if lists show the run as this one of SHOWN_STATES."""
    if state == NEEDS_A_PERSON:
        return run_needs_a_person()
    if state == SILENT:
        return sa.and_(is_silent_in_sql(now), ~run_needs_a_person())
    return sa.and_(Run.state == state, ~is_silent_in_sql(now), ~run_needs_a_person())
