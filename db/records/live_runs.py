"""The state of all running runs for a monitoring system: each scrape costs a fixed number of queries.

A run of the past, while it is imported, is not among them: nobody is to be alerted of it.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.lineage import discarded
from db.models import BESIDE, Event, Incident, Intervention, Run, RunStatus, Segment, SkippedBatches
from db.run_states import has_no_heartbeat
from lossguard.vocabulary.protocol import CANNOT_SAVE, CHECKPOINT_UNCERTIFIED, IMPORTED, uncertified_state
from lossguard.vocabulary.states import (
    THROUGHPUT_KINDS,
    IncidentKind,
    IncidentState,
    InterventionState,
    OrderKind,
    RunState,
)

LiveRun = sa.Row[str, str, float, RunStatus]
"""A run's id, its project, when it last reported, and its status."""


RunPks = Collection[int] | sa.Select[tuple[int]]


class ShownRun(NamedTuple):
    """A run that has not ended, and what is shown of its status (see `RunStatus`)."""

    run_pk: int
    id: str
    project: str
    last_report_at: float
    saves_fail: bool
    """True if its checkpoints cannot be saved at present."""
    step: int | None
    last_step_at: float
    expected_by: float | None
    undelivered_bytes: int | None
    nonfinite_steps: int
    skipped_steps: int
    latest_values: dict[str, Any]
    peaks: list[Any]
    recent_reports: list[Any]


_SAVES_FAIL = sa.cast(Run.capabilities, sa.String).like(f'%"{CANNOT_SAVE}%')
_OF_THE_PRESENT = sa.cast(Run.capabilities, sa.String).not_like(f'%"{IMPORTED}"%')


def num_running(session: Session) -> int:
    """Runs that have not ended and have a status: the ones that `shown` yields."""
    found = sa.select(sa.func.count()).select_from(Run).join(RunStatus, RunStatus.run_pk == Run.pk)
    return session.scalar(found.where(Run.state == RunState.RUNNING, _OF_THE_PRESENT)) or 0


def shown(session: Session, *, limit: int) -> list[ShownRun]:
    """The runs that have not ended, those that reported last first, at most `limit`.

    Columns and no objects: of two thousand runs, these are read in a quarter of the time.
    """
    columns = [getattr(RunStatus, name) for name in ShownRun._fields[5:]]
    found = sa.select(Run.pk, Run.id, Run.project, Run.last_report_at, _SAVES_FAIL, *columns)
    found = _newest_first(found.join(RunStatus, RunStatus.run_pk == Run.pk)).limit(limit)
    return [ShownRun(*row) for row in session.execute(found)]


def shown_pks(*, limit: int) -> RunPks:
    """The keys of the same runs, for the questions below."""
    found = sa.select(Run.pk).join(RunStatus, RunStatus.run_pk == Run.pk)
    return sa.select(_newest_first(found).limit(limit).subquery().c.pk)


def _newest_first(found: sa.Select[Any]) -> sa.Select[Any]:
    found = found.where(Run.state == RunState.RUNNING, _OF_THE_PRESENT)
    return found.order_by(Run.last_report_at.desc(), Run.pk.desc())


def without_steps(
    session: Session, *, now: float, since: float, default: float, limit: int, run_pk: int | None = None
) -> Sequence[LiveRun]:
    """Live runs without a step for as long as a stall lasts (`RunStatus.stall_after`, else `default` seconds).

    Not those that are stalled already, that are held, or that announced a pause. The time counts from `since` on at
    the earliest: before it nobody took reports. The longest first, at most `limit` runs.
    """
    after = sa.func.coalesce(RunStatus.stall_after, default)
    found = sa.select(Run.id, Run.project, Run.last_report_at, RunStatus).join(RunStatus, RunStatus.run_pk == Run.pk)
    found = found.where(Run.state == RunState.RUNNING, _OF_THE_PRESENT, after < now - since)
    # A client without heartbeats that sent its request twice has registered a run that never gets a step.
    found = found.where(sa.or_(RunStatus.step.is_not(None), ~has_no_heartbeat()))
    found = found.where(RunStatus.last_step_at + after < now, sa.func.coalesce(RunStatus.expected_by, 0.0) < now)
    found = found.where(~_has(Incident, Incident.kind == IncidentKind.STALL, Incident.state != IncidentState.CLOSED))
    is_hold = Intervention.kind == OrderKind.HOLD, Intervention.state == InterventionState.APPLIED
    found = found.where(~_has(Intervention, *is_hold))
    if run_pk is not None:
        found = found.where(Run.pk == run_pk)
    return session.execute(found.order_by(RunStatus.last_step_at, Run.pk).limit(limit)).all()


def is_stalled_or_slow(session: Session, *, run_pk: int) -> bool:
    """True if an incident of the speed of the run is open."""
    is_open = Incident.kind.in_(THROUGHPUT_KINDS), Incident.state != IncidentState.CLOSED
    return session.scalar(sa.select(Incident.id).where(Incident.run_pk == run_pk, *is_open).limit(1)) is not None


def _has(table: type[Incident] | type[Intervention], *conditions: sa.ColumnElement[bool]) -> sa.Exists:
    return sa.exists().where(table.run_pk == Run.pk, *conditions)


def closed_incidents(session: Session, *, run_pks: RunPks) -> Mapping[tuple[int, str], int]:
    """(run, kind) -> closed incidents. A closed incident keeps its kind, so that a count never falls."""
    found = sa.select(Incident.run_pk, Incident.kind, sa.func.count())
    found = found.where(Incident.run_pk.in_(run_pks), Incident.state == IncidentState.CLOSED)
    return {(pk, kind): count for pk, kind, count in session.execute(found.group_by(Incident.run_pk, Incident.kind))}


def present_incidents(session: Session, *, run_pks: RunPks, now: float, linger: float) -> Sequence[Incident]:
    """Incidents that are not closed, and short ones until `linger` seconds after their end, by number.

    A closed incident that lasted longer was seen while it was open. It may change later: a replay gives a verdict, or a
    resumed run ends it.
    """
    is_recent = sa.and_(Incident.changed_at >= now - linger, Incident.changed_at - Incident.opened_at <= linger)
    present = sa.or_(Incident.state != IncidentState.CLOSED, is_recent)
    found = sa.select(Incident).where(Incident.run_pk.in_(run_pks), present)
    return session.scalars(found.order_by(Incident.run_pk, Incident.number)).all()


def interventions(session: Session, *, run_pks: RunPks) -> Mapping[tuple[int, str, str], int]:
    """(run, kind, state) -> interventions."""
    by = (Intervention.run_pk, Intervention.kind, Intervention.state)
    found = sa.select(*by, sa.func.count()).where(Intervention.run_pk.in_(run_pks)).group_by(*by)
    return {(pk, kind, state): count for pk, kind, state, count in session.execute(found)}


def uncertified_steps(session: Session, *, run_pks: RunPks) -> Mapping[int, int]:
    """Run -> step of its newest state that is never restored, until a newer one can be (see `uncertified_state`)."""
    led = sa.select(Segment.number).where(Segment.run_pk == Event.run_pk, Segment.live_order >= 0)
    newest = led.order_by(Segment.live_order.desc()).limit(1).scalar_subquery()
    found = sa.select(Event.run_pk, Event.segment, Event.kind, Event.details, Run.restorable_steps, newest)
    found = found.join(Run, Run.pk == Event.run_pk)
    found = found.where(Event.run_pk.in_(run_pks), Event.kind == CHECKPOINT_UNCERTIFIED)
    steps: dict[int, int] = {}
    for pk, segment, kind, details, restorable, newest_segment in session.execute(found.order_by(Event.id)):
        if (state := uncertified_state([(segment, kind, details)], newest_segment, restorable)) is not None:
            steps[pk] = state[0]
    return steps


def skipped_batches(session: Session, *, run_pks: RunPks) -> Mapping[int, int]:
    """Run -> batches that it skipped because of orders."""
    width = sa.func.sum(SkippedBatches.skip_to - SkippedBatches.skip_from)
    found = sa.select(SkippedBatches.run_pk, width).where(SkippedBatches.run_pk.in_(run_pks))
    return {pk: int(count) for pk, count in session.execute(found.group_by(SkippedBatches.run_pk))}


def lost_steps(session: Session, *, run_pks: RunPks) -> Mapping[int, int]:
    """Run -> optimizer steps on its discarded branches, including those that were never reported.

    Those of a second process, beside the live line, were never on it.
    """
    several = sa.select(Segment.run_pk).where(Segment.run_pk.in_(run_pks), Segment.number > 0)
    names = ("run_pk", "number", "parent", "fork_step", "live_order", "first_step", "last_step")
    columns = sa.select(*(getattr(Segment, name) for name in names)).where(Segment.live_order != BESIDE)
    trees: dict[int, list[Any]] = defaultdict(list)  # rows with the columns of a segment that `discarded` asks for
    for segment in session.execute(columns.where(Segment.run_pk.in_(several)).order_by(Segment.number)):
        trees[segment.run_pk].append(segment)
    return {
        pk: sum(step_range.last - step_range.first for step_range in discarded(tree) if step_range.last is not None)
        for pk, tree in trees.items()
    }
