"""Everything that reads the store: keyword-only functions named by their question."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.lineage import Stretch, live_line
from db.models import (
    DetectorSnapshot,
    Event,
    Incident,
    Intervention,
    Order,
    Run,
    Segment,
    SkippedBatches,
    Step,
    WatchState,
)
from db.step_rows import metric_column, non_finite_text
from lossguard.protocol import STANDARD_METRICS, OrderState


def runs(session: Session, *, project: str | None = None) -> Sequence[Run]:
    """All runs, the newest first."""
    found = sa.select(Run).order_by(Run.started_at.desc(), Run.pk.desc())
    return session.scalars(found if project is None else found.where(Run.project == project)).all()


def run_named(session: Session, *, run_id: str) -> Run | None:
    return session.scalar(sa.select(Run).where(Run.id == run_id))


def segments(session: Session, *, run: Run) -> Sequence[Segment]:
    """The run's segments by number: a tree through `parent`."""
    return session.scalars(sa.select(Segment).where(Segment.run_pk == run.pk).order_by(Segment.number)).all()


def live(session: Session, *, run: Run) -> list[Stretch]:
    """The live line: the path from the root to the newest segment, oldest stretch first."""
    return live_line(segments(session, run=run))


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


def watch_state(session: Session, *, run: Run) -> dict[str, Any] | None:
    return session.scalar(sa.select(WatchState.state).where(WatchState.run_pk == run.pk))


def snapshot_before(session: Session, *, run: Run, step: int) -> tuple[int, dict[str, Any]] | None:
    """The newest detectors' state on the live line that saw only steps below `step`: (its last step, the state)."""
    line = {stretch.segment: stretch for stretch in live(session, run=run)}
    found = sa.select(DetectorSnapshot).where(DetectorSnapshot.run_pk == run.pk, DetectorSnapshot.step < step)
    for row in session.scalars(found.order_by(DetectorSnapshot.step.desc(), DetectorSnapshot.segment.desc())):
        if row.segment in line and line[row.segment].holds(row.step):
            return row.step, row.state
    return None


def metric_names(session: Session, *, run: Run) -> list[str]:
    """The names that the run's newest steps carry: standard ones first."""
    found = sa.select(Step).where(Step.run_pk == run.pk).order_by(Step.segment.desc(), Step.step.desc()).limit(100)
    seen: set[str] = set()
    for step in session.scalars(found):
        seen |= {name for name in STANDARD_METRICS if getattr(step, name) is not None}
        seen |= set(step.extra or {}) | set(step.non_finite or {})
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


@dataclass(slots=True)
class Series:
    """A metric over steps in buckets; columns of equal length, in step order.

    With at most one step a bucket, min = max = mean = last is the value itself. `non_finite` counts the values that
    were NaN or infinite: they are in no other column (min, max, mean and last are None where nothing else was).
    """

    first_step: list[int] = field(default_factory=list)
    last_step: list[int] = field(default_factory=list)
    min: list[float | None] = field(default_factory=list)
    max: list[float | None] = field(default_factory=list)
    mean: list[float | None] = field(default_factory=list)
    last: list[float | None] = field(default_factory=list)
    count: list[int] = field(default_factory=list)
    non_finite: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.first_step)


def series(
    session: Session,
    *,
    run: Run,
    stretches: Sequence[Stretch],
    metric: str,
    first: int | None = None,
    last: int | None = None,
    points: int = 1500,
) -> Series:
    """`metric` over the steps [first, last] of these stretches in about `points` buckets, exactly: no spike is hidden.

    The range is cut before the buckets are made, and the buckets lie on multiples of their width, so that a chart
    that grows does not jump. Raises ValueError when `points` is below 1.
    """
    if points < 1:
        raise ValueError(f"points must be at least 1, not {points}")
    spans = [_span(session, run, stretch, first, last) for stretch in stretches]
    known = [span for span in spans if span is not None]
    if not known:
        return Series()
    width = max(1, -(-(max(high for _, high in known) - min(low for low, _ in known) + 1) // points))
    result = Series()
    for stretch in stretches:
        _add_buckets(result, session, run, stretch, metric, width, first, last)
    return result


def _within(select: Any, run: Run, stretch: Stretch, first: int | None, last: int | None) -> Any:
    low = stretch.first if first is None else max(first, stretch.first)
    select = select.where(Step.run_pk == run.pk, Step.segment == stretch.segment, Step.step >= low)
    if stretch.last is not None:
        select = select.where(Step.step < stretch.last)
    return select if last is None else select.where(Step.step <= last)


def _span(session: Session, run: Run, stretch: Stretch, first: int | None, last: int | None) -> tuple[int, int] | None:
    low, high = session.execute(
        _within(sa.select(sa.func.min(Step.step), sa.func.max(Step.step)), run, stretch, first, last)
    ).one()
    return None if low is None else (low, high)


def _add_buckets(
    result: Series,
    session: Session,
    run: Run,
    stretch: Stretch,
    metric: str,
    width: int,
    first: int | None,
    last: int | None,
) -> None:
    value, strange = metric_column(metric), non_finite_text(metric)
    bucket = Step.step.op("/")(width) if width > 1 else Step.step  # whole-number division in both databases
    summary = sa.select(
        sa.func.min(Step.step),
        sa.func.max(Step.step),
        sa.func.min(value),
        sa.func.max(value),
        sa.func.avg(value),
        sa.func.count(value),
        sa.func.count(strange),
        sa.func.max(Step.step).filter(value.is_not(None)).label("last_finite"),
    )
    summary = _within(summary, run, stretch, first, last).where(sa.or_(value.is_not(None), strange.is_not(None)))
    rows = session.execute(summary.group_by(bucket).order_by(bucket)).all()
    lasts = _values_at(session, run, stretch, value, [row.last_finite for row in rows if row.last_finite is not None])
    for low, high, least, most, mean, count, num_strange, last_finite in rows:
        result.first_step.append(low)
        result.last_step.append(high)
        result.min.append(least)
        result.max.append(most)
        result.mean.append(mean)
        result.last.append(lasts.get(last_finite))
        result.count.append(count)
        result.non_finite.append(num_strange)


def _values_at(
    session: Session, run: Run, stretch: Stretch, value: sa.ColumnElement[Any], steps: list[int]
) -> dict[int, float]:
    found: dict[int, float] = {}
    for start in range(0, len(steps), 500):
        chosen = sa.select(Step.step, value).where(
            Step.run_pk == run.pk, Step.segment == stretch.segment, Step.step.in_(steps[start : start + 500])
        )
        found.update({step: number for step, number in session.execute(chosen)})
    return found
