"""Queries of the store: each function is named by its result and takes the session and keyword arguments."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import lineage
from db.lineage import Line, StepRange, discarded, end_of, live_line
from db.models import (
    DetectionState,
    DetectorSnapshot,
    Event,
    Incident,
    Intervention,
    Metric,
    Order,
    Run,
    RunStatus,
    Segment,
    SkippedBatches,
    intact_state,
)
from db.steps import reader, step_times
from db.steps.series import Series as Series
from db.steps.series import many_series as many_series
from db.steps.series import series as series
from db.steps.step_block import RunRange
from db.steps.step_times import At, Span, StepTime, StoredStep
from db.store import bulk
from db.store.engine import dialect_of
from lossguard.vocabulary.metrics import in_order
from lossguard.vocabulary.protocol import PROBE
from lossguard.vocabulary.source_facts import SOURCE
from lossguard.vocabulary.states import OrderState
from lossguard.vocabulary.wire import Probe

Row = TypeVar("Row", bound=Segment | Incident | Intervention | Order | SkippedBatches | Event)


def _of_run(session: Session, run: Run, table: type[Row], *tests: sa.ColumnElement[bool], by: Any) -> Sequence[Row]:
    """The rows of a run that pass, in the order of a column."""
    return session.scalars(sa.select(table).where(table.run_pk == run.pk, *tests).order_by(by)).all()


def by_run(
    session: Session,
    pks: Iterable[int],
    table: type[Incident | Intervention | Order | RunStatus | Segment],
    *tests: sa.ColumnElement[bool],
    columns: Sequence[str] = (),
    by: Any,
) -> dict[int, list[Any]]:
    """The rows of several runs that pass, by `Run.pk`, in the order of a column.

    Objects, or these columns of them and `run_pk`: those of ten thousand runs are read in half of the time.
    """
    names = [getattr(table, name) for name in columns]
    chosen = (sa.select(table.run_pk, *names) if columns else sa.select(table)).where(*tests)
    found: dict[int, list[Any]] = defaultdict(list)
    for some in bulk.key_parts(pks):
        rows = chosen.where(table.run_pk.in_(some)).order_by(table.run_pk, by)
        for row in session.execute(rows) if columns else session.scalars(rows):
            found[row.run_pk].append(row)
    return found


def runs(session: Session, *, project: str | None = None) -> Sequence[Run]:
    """Return all runs, the newest first."""
    found = sa.select(Run).order_by(Run.started_at.desc(), Run.pk.desc())
    return session.scalars(found if project is None else found.where(Run.project == project)).all()


def num_runs(session: Session) -> int:
    return session.scalar(sa.select(sa.func.count()).select_from(Run)) or 0


def run_named(session: Session, *, run_id: str) -> Run | None:
    return session.scalar(sa.select(Run).where(Run.id == run_id))


def runs_called(session: Session, *, text: str) -> Sequence[Run]:
    """Return the runs that a person may mean: by id or its beginning, by name, or by project/name; the newest first."""
    called = (Run.id.startswith(text, autoescape=True), Run.name == text, Run.project + "/" + Run.name == text)
    return session.scalars(sa.select(Run).where(sa.or_(*called)).order_by(Run.started_at.desc(), Run.pk.desc())).all()


def segments(session: Session, *, run: Run) -> Sequence[Segment]:
    """The run's segments by number: a tree through `parent`."""
    return _of_run(session, run, Segment, by=Segment.number)


def num_segments(session: Session, *, run: Run) -> int:
    """Return the number of segments of the run: they are numbered from 0."""
    newest = session.scalar(sa.select(sa.func.max(Segment.number)).where(Segment.run_pk == run.pk))
    return 0 if newest is None else newest + 1


def segment_with_key(session: Session, *, run: Run, key: str) -> Segment | None:
    return session.scalar(sa.select(Segment).where(Segment.run_pk == run.pk, Segment.key == key))


def segment_of_order(session: Session, *, order: Order) -> Segment | None:
    found = sa.select(Segment).where(Segment.run_pk == order.run_pk, Segment.order_id == order.id)
    return session.scalar(found.order_by(Segment.number).limit(1))


def newest_segment(session: Session, *, run: Run) -> Segment | None:
    """The segment to which the live line leads, see `Segment.live_order`."""
    found = sa.select(Segment).where(Segment.run_pk == run.pk, Segment.fork_step.is_not(None), Segment.live_order >= 0)
    return session.scalar(found.order_by(Segment.live_order.desc(), Segment.number.desc()).limit(1))


def newest_live_order(session: Session, *, run: Run) -> int:
    """The greatest of all segments, also of those whose first step is not known; -1 without any."""
    found = session.scalar(sa.select(sa.func.max(Segment.live_order)).where(Segment.run_pk == run.pk))
    return -1 if found is None else found


def is_newest_of_writer(session: Session, *, segment: Segment) -> bool:
    """True if the process that opened the segment has opened none after it."""
    writer = Segment.writer.is_(None) if segment.writer is None else Segment.writer == segment.writer
    later = sa.select(Segment.number).where(Segment.run_pk == segment.run_pk, Segment.number > segment.number, writer)
    return session.scalar(later.limit(1)) is None


def newest_record_of(session: Session, *, run: Run, segment: Segment) -> Segment | None:
    """The newest segment that began this segment's first step in the same state, and has rows from there on, or None.

    That is the segment it forked off, if that went on, or one that forked off at the same step. On a line that the run
    had left before, it had another state at that step.
    """
    parent = Segment.parent.is_(None) if segment.parent is None else Segment.parent == segment.parent
    found = sa.select(Segment).where(
        Segment.run_pk == run.pk,
        Segment.number < segment.number,
        Segment.last_step >= segment.fork_step,
        sa.or_(Segment.number == segment.parent, sa.and_(parent, Segment.fork_step == segment.fork_step)),
    )
    return session.scalar(found.order_by(Segment.number.desc()).limit(1))


def orders_between(session: Session, *, run: Run, first: int, before: int) -> Sequence[Order]:
    """The orders that the segments numbered `first` up to `before` - 1 carried out."""
    carried_out = sa.select(Order).join(Segment, Segment.order_id == Order.id)
    chosen = (Segment.run_pk == run.pk, Segment.number >= first, Segment.number < before)
    return session.scalars(carried_out.where(*chosen)).all()


def live(session: Session, *, run: Run) -> list[StepRange]:
    """The live line: the path from the root to the newest segment, oldest range first."""
    return live_line(segments(session, run=run))


def live_since(session: Session, *, run: Run, step: int) -> list[StepRange]:
    """The end of the live line: from the range that holds `step` on, or from the first one after it."""
    return live_line(segments_since(session, run=run, step=step))


def parent_at(session: Session, *, run: Run, fork_step: int) -> int | None:
    """The live segment that holds the step before `fork_step`, by number; None when the fork is a new root."""
    return lineage.parent_at(segments_since(session, run=run, step=fork_step - 1), fork_step)


def segments_since(session: Session, *, run: Run, step: int) -> Sequence[Segment]:
    """The newest segment and its ancestors, up to the first one that begins at or before `step`, by number.

    One query, because a run may have thousands of segments, and the end of its live line is a few of them.
    """
    newest = newest_segment(session, run=run)
    if newest is None or newest.fork_step is None or newest.fork_step <= step:
        return [] if newest is None else [newest]
    columns = (Segment.number, Segment.parent, Segment.fork_step)
    path = sa.select(*columns).where(Segment.run_pk == run.pk, Segment.number == newest.number)
    line = path.cte("line", recursive=True)
    above = sa.select(*columns).where(Segment.run_pk == run.pk, Segment.number == line.c.parent)
    line = line.union(above.where(line.c.fork_step > step))
    found = sa.select(Segment).where(Segment.run_pk == run.pk, Segment.number.in_(sa.select(line.c.number)))
    return session.scalars(found.order_by(Segment.number)).all()


def step_ranges(session: Session, *, run: Run, line: Line | int) -> list[StepRange]:
    """The live line, the discarded steps, both, or one whole segment by its number."""
    return lineage.step_ranges(segments(session, run=run), line)


def tree(session: Session, *, run: Run) -> dict[int | None, list[int]]:
    """Parent -> the segments that forked off it; None -> the roots."""
    return lineage.tree(segments(session, run=run))


@dataclass(frozen=True, slots=True)
class StepCounts:
    """The number of steps that a run has computed, and of those that are still part of it."""

    consumed: int
    """Steps on all segments."""
    effective: int
    """Steps on the live line."""


def step_counts(session: Session, *, run: Run) -> StepCounts:
    """Count steps; only the discarded branches, which are short, are counted step by step."""
    tree = segments(session, run=run)
    consumed = sum(segment.num_steps for segment in tree)
    branches = reader.read_ranges(session, ranges=[RunRange(run.pk, one) for one in discarded(tree)], metrics=[])
    num_discarded = sum(map(len, branches))
    return StepCounts(consumed, consumed - num_discarded)


def incidents(session: Session, *, run: Run, changed_since: float | None = None) -> Sequence[Incident]:
    """`changed_since`: unix seconds; None for all."""
    tests = () if changed_since is None else (Incident.changed_at >= changed_since,)
    return _of_run(session, run, Incident, *tests, by=Incident.number)


def incidents_after(session: Session, *, run: Run, step: int) -> Sequence[Incident]:
    """Return the incidents that go on, or that ended at `step` or after it."""
    goes_on = sa.or_(Incident.end_step.is_(None), Incident.end_step >= step)
    return _of_run(session, run, Incident, goes_on, by=Incident.number)


def incident_numbered(session: Session, *, run: Run, number: int) -> Incident | None:
    return session.scalar(sa.select(Incident).where(Incident.run_pk == run.pk, Incident.number == number))


def interventions(session: Session, *, run: Run, changed_since: float | None = None) -> Sequence[Intervention]:
    """`changed_since`: unix seconds; None for all."""
    tests = () if changed_since is None else (Intervention.changed_at >= changed_since,)
    return _of_run(session, run, Intervention, *tests, by=Intervention.number)


def orders(session: Session, *, run: Run, open_only: bool = False) -> Sequence[Order]:
    return _of_run(session, run, Order, *([Order.state == OrderState.OPEN] if open_only else []), by=Order.id)


def order_of(session: Session, *, intervention: Intervention) -> Order | None:
    return session.scalar(
        sa.select(Order).where(Order.run_pk == intervention.run_pk, Order.intervention == intervention.number)
    )


def skip_ledger(session: Session, *, run: Run) -> Sequence[SkippedBatches]:
    return _of_run(session, run, SkippedBatches, by=SkippedBatches.skip_from)


MAX_EVENTS = 10_000
"""Maximum number of a run's events that a page or an answer shows, the newest ones."""


def events(session: Session, *, run: Run, steps: tuple[int, int] | None = None) -> Sequence[Event]:
    """Declared events and outliers, in the order of arrival; `steps`: only those at the steps [first, last).

    `probes` reads probes, which are many and large.
    """
    tests = () if steps is None else (Event.step >= steps[0], Event.step < steps[1])
    return _of_run(session, run, Event, Event.kind != PROBE, *tests, by=Event.id)


def newest_events(session: Session, *, run: Run) -> Sequence[Event]:
    """The newest MAX_EVENTS of them in the order of arrival, and all events that say how the rows are made."""
    of_run = sa.select(Event.id).where(Event.run_pk == run.pk, Event.kind != PROBE)
    older = of_run.order_by(Event.id.desc()).offset(MAX_EVENTS).limit(1)
    is_shown = sa.or_(Event.id > sa.func.coalesce(older.scalar_subquery(), 0), Event.kind == SOURCE)
    return _of_run(session, run, Event, Event.kind != PROBE, is_shown, by=Event.id)


def source_events(session: Session, *, run: Run) -> Sequence[Event]:
    """The events that say how the rows are made, and those that a loop has declared under the same name."""
    return _of_run(session, run, Event, Event.kind == SOURCE, by=Event.id)


def newest_event_step(session: Session, *, run: Run, segment: int) -> int | None:
    """The latest step of an event of this segment; None without one."""
    found = sa.select(sa.func.max(Event.step)).where(Event.run_pk == run.pk, Event.segment == segment)
    return session.scalar(found)


@dataclass(frozen=True, slots=True)
class StoredProbe:
    """A probe, and the step of the run at which it was taken."""

    segment: int
    step: int
    """The last step that was finished before the probe."""
    time: float
    live: bool
    """True if this step of the segment is on the live line."""
    probe: Probe


def probes(session: Session, *, run: Run, prompt: str | None = None) -> list[StoredProbe]:
    """The probes of a run (or those of one prompt) by step, on discarded branches too; damaged ones are left out."""
    found = sa.select(Event).where(*_probes_of(run))
    if prompt is not None:
        found = found.where(_prompt(session) == prompt)
    line = {step_range.segment: step_range for step_range in live(session, run=run)}
    return [
        StoredProbe(
            segment=event.segment,
            step=event.step,
            time=event.time,
            live=event.segment in line and line[event.segment].holds(event.step),
            probe=probe,
        )
        for event in session.scalars(found.order_by(Event.step, Event.segment, Event.id))
        if event.step is not None and (probe := _probe(event)) is not None
    ]


def _probe(event: Event) -> Probe | None:
    try:
        return Probe.from_details(event.details)
    except ValueError:
        return None


def num_probes(session: Session, *, run: Run) -> int:
    """Count the probes of a run. They never change and are never deleted, so a new number means a new probe."""
    return session.scalar(sa.select(sa.func.count()).select_from(Event).where(*_probes_of(run))) or 0


def prompts(session: Session, *, run: Run) -> list[str]:
    """The prompts of a run's probes, in the order of their first probe."""
    named = sa.select(Event.id, _prompt(session).label("prompt")).where(*_probes_of(run)).subquery()
    found = sa.select(named.c.prompt).where(named.c.prompt.is_not(None)).group_by(named.c.prompt)
    return list(session.scalars(found.order_by(sa.func.min(named.c.id))))


def _prompt(session: Session) -> sa.ColumnElement[str | None]:
    return dialect_of(session.get_bind()).member(Event.details, "prompt")


def _probes_of(run: Run) -> tuple[sa.ColumnElement[bool], ...]:
    return (Event.run_pk == run.pk, Event.kind == PROBE, Event.step.is_not(None))


def detection_state(session: Session, *, run: Run) -> DetectionState | None:
    """The state of the run's detection as it was saved last."""
    return session.scalar(
        sa.select(DetectionState).where(DetectionState.run_pk == run.pk).execution_options(populate_existing=True)
    )


def newest_numbers(session: Session, *, run: Run) -> tuple[int, int]:
    """The greatest numbers of its incidents and of its interventions; 0 without any."""
    incident = sa.select(sa.func.max(Incident.number)).where(Incident.run_pk == run.pk)
    intervention = sa.select(sa.func.max(Intervention.number)).where(Intervention.run_pk == run.pk)
    return session.scalar(incident) or 0, session.scalar(intervention) or 0


def snapshot_before(
    session: Session, *, run: Run, step: int, line: Sequence[StepRange] | None = None
) -> tuple[int, dict[str, Any]] | None:
    """The newest state of the detectors on a line that has seen only steps below `step`: (its last step, the state).

    `line` is by default the live line. States that are damaged are left out.
    """
    found = sa.select(DetectorSnapshot.segment, DetectorSnapshot.step).where(
        DetectorSnapshot.run_pk == run.pk, DetectorSnapshot.step < step
    )
    found = found.order_by(DetectorSnapshot.step.desc(), DetectorSnapshot.segment.desc())
    ranges = {part.segment: part for part in line or ()}
    for number, seen in session.execute(found).all():
        if line is None and not any(part.first <= seen for part in ranges.values()):
            ranges = {part.segment: part for part in live_since(session, run=run, step=seen)}
        if number in ranges and ranges[number].holds(seen):  # a state is large: only this one is read
            found_state = session.get_one(DetectorSnapshot, (run.pk, number, seen)).state
            if state := intact_state(found_state, number, seen):
                return seen, state
    return None


def metric_names(session: Session, *, run: Run) -> list[str]:
    """The names of the run's metrics, `in_order`."""
    return in_order(set(session.scalars(sa.select(Metric.name).where(Metric.run_pk == run.pk))))


def times(session: Session, *, run: Run, step_ranges: Sequence[StepRange], steps: Sequence[int]) -> dict[int, float]:
    """Step -> when the trainer logged it, in unix seconds, of these steps within the ranges; in step order."""
    rising = sorted(steps)
    ends = [(bisect_left(rising, one.first), bisect_left(rising, end_of(one))) for one in step_ranges]
    wanted = [
        At(run.pk, one.segment, step)
        for one, (low, high) in zip(step_ranges, ends, strict=True)
        for step in rising[low:high]
    ]
    found = {at.step: time for at, time in step_times.times_of(session, wanted).items()}
    return dict(sorted(found.items()))


def newest_times(session: Session, *, run: Run, count: int = 100) -> tuple[int | None, list[StepTime]]:
    """The last `count` steps of the newest segment on the live line that has any, in order; with its number."""
    for part in reversed(live(session, run=run)):
        span = Span(run.pk, part.segment, part.first, end_of(part))
        if found := step_times.newest_times(session, [span], count=count):
            return part.segment, found[span]
    return None, []


def newest_step(session: Session, *, run: Run) -> StoredStep | None:
    """The last step of the live line."""
    segment, last = newest_times(session, run=run, count=1)
    if segment is None:
        return None
    names = metric_names(session, run=run)
    return step_times.stored_step(session, run_pk=run.pk, segment=segment, step=last[-1].step, metrics=names)
