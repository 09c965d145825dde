"""Everything that reads the store: keyword-only functions named by their question."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.lineage import Stretch, discarded, live_line
from db.models import (
    DetectorSnapshot,
    Event,
    Incident,
    Intervention,
    Metric,
    Order,
    Run,
    Segment,
    SkippedBatches,
    Step,
    WatchState,
)
from db.series import Series as Series
from db.series import series as series
from lossguard.protocol import STANDARD_METRICS, OrderState, RunState


def runs(session: Session, *, project: str | None = None) -> Sequence[Run]:
    """All runs, the newest first."""
    found = sa.select(Run).order_by(Run.started_at.desc(), Run.pk.desc())
    return session.scalars(found if project is None else found.where(Run.project == project)).all()


def num_runs(session: Session) -> int:
    return session.scalar(sa.select(sa.func.count()).select_from(Run)) or 0


def run_named(session: Session, *, run_id: str) -> Run | None:
    return session.scalar(sa.select(Run).where(Run.id == run_id))


def segments(session: Session, *, run: Run) -> Sequence[Segment]:
    """The run's segments by number: a tree through `parent`."""
    return session.scalars(sa.select(Segment).where(Segment.run_pk == run.pk).order_by(Segment.number)).all()


def newest_segment(session: Session, *, run: Run) -> Segment | None:
    """The segment that was opened last, of those whose place in the tree is known."""
    found = sa.select(Segment).where(Segment.run_pk == run.pk, Segment.fork_step.is_not(None))
    return session.scalar(found.order_by(Segment.opened_at.desc(), Segment.number.desc()).limit(1))


def live(session: Session, *, run: Run) -> list[Stretch]:
    """The live line: the path from the root to the newest segment, oldest stretch first."""
    return live_line(segments(session, run=run))


@dataclass(frozen=True, slots=True)
class StepCounts:
    """What a run has computed, and what of it counts."""

    consumed: int
    """Steps on all segments."""
    effective: int
    """Steps on the live line."""


def step_counts(session: Session, *, run: Run) -> StepCounts:
    """Counted over the discarded branches alone, which are short."""
    tree = segments(session, run=run)
    consumed = sum(segment.num_steps for segment in tree)
    left = 0
    for stretch in discarded(tree):
        left += session.scalar(_within(sa.select(sa.func.count()).select_from(Step), run, stretch, None, None)) or 0
    return StepCounts(consumed, consumed - left)


def ended_before(session: Session, *, time: float) -> Sequence[Run]:
    """Runs that ended and were last heard of before `time`, the oldest first."""
    found = sa.select(Run).where(Run.state != RunState.RUNNING, Run.last_report_at < time)
    return session.scalars(found.order_by(Run.last_report_at)).all()


def incidents(session: Session, *, run: Run) -> Sequence[Incident]:
    return session.scalars(sa.select(Incident).where(Incident.run_pk == run.pk).order_by(Incident.number)).all()


def interventions(session: Session, *, run: Run) -> Sequence[Intervention]:
    found = sa.select(Intervention).where(Intervention.run_pk == run.pk)
    return session.scalars(found.order_by(Intervention.number)).all()


def orders(session: Session, *, run: Run, open_only: bool = False) -> Sequence[Order]:
    found = sa.select(Order).where(Order.run_pk == run.pk).order_by(Order.id)
    return session.scalars(found.where(Order.state == OrderState.OPEN) if open_only else found).all()


def order_of(session: Session, *, intervention: Intervention) -> Order | None:
    return session.scalar(
        sa.select(Order).where(Order.run_pk == intervention.run_pk, Order.intervention == intervention.number)
    )


def skip_ledger(session: Session, *, run: Run) -> Sequence[SkippedBatches]:
    found = sa.select(SkippedBatches).where(SkippedBatches.run_pk == run.pk)
    return session.scalars(found.order_by(SkippedBatches.skip_from)).all()


def events(session: Session, *, run: Run) -> Sequence[Event]:
    return session.scalars(sa.select(Event).where(Event.run_pk == run.pk).order_by(Event.id)).all()


def watch_state(session: Session, *, run: Run) -> WatchState | None:
    """Where the detection of the run stood when it was last written down."""
    return session.scalar(
        sa.select(WatchState).where(WatchState.run_pk == run.pk).execution_options(populate_existing=True)
    )


def snapshot_before(session: Session, *, run: Run, step: int) -> tuple[int, dict[str, Any]] | None:
    """The newest detectors' state on the live line that saw only steps below `step`: (its last step, the state)."""
    line = {stretch.segment: stretch for stretch in live(session, run=run)}
    found = sa.select(DetectorSnapshot).where(DetectorSnapshot.run_pk == run.pk, DetectorSnapshot.step < step)
    for row in session.scalars(found.order_by(DetectorSnapshot.step.desc(), DetectorSnapshot.segment.desc())):
        if row.segment in line and line[row.segment].holds(row.step):
            return row.step, row.state
    return None


def metric_names(session: Session, *, run: Run) -> list[str]:
    """The names that the run has reported: standard ones first."""
    seen = set(session.scalars(sa.select(Metric.name).where(Metric.run_pk == run.pk)))
    return [name for name in STANDARD_METRICS if name in seen] + sorted(seen - set(STANDARD_METRICS))


def steps_of(
    session: Session, *, run: Run, stretch: Stretch, first: int | None = None, chunk: int = 5000
) -> Iterator[Sequence[Step]]:
    """The steps of a stretch from `first` on, in chunks, in order."""
    found = _within(sa.select(Step), run, stretch, first, None).order_by(Step.step)
    yield from session.scalars(found.execution_options(yield_per=chunk)).partitions(chunk)


def newest_step(session: Session, *, run: Run) -> Step | None:
    """The last step of the live line."""
    for stretch in reversed(live(session, run=run)):
        found = _within(sa.select(Step), run, stretch, None, None).order_by(Step.step.desc()).limit(1)
        step: Step | None = session.scalar(found)
        if step is not None:
            return step
    return None


def _within(select: Any, run: Run, stretch: Stretch, first: int | None, last: int | None) -> Any:
    low = stretch.first if first is None else max(first, stretch.first)
    select = select.where(Step.run_pk == run.pk, Step.segment == stretch.segment, Step.step >= low)
    if stretch.last is not None:
        select = select.where(Step.step < stretch.last)
    return select if last is None else select.where(Step.step <= last)
