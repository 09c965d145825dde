"""The overview of many runs: a few statements, whose cost does not depend on how long the runs are.

`summaries` takes the runs of one page, whatever chose them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import commands, queries
from db.lineage import end_of, extent, live_line
from db.models import Incident, Intervention, Metric, Run, RunStatus, Segment
from db.run_states import is_unanswered, needs_a_person_in_sql
from db.runs.conditions import IN_STATUS
from db.steps import summaries as metric_summaries
from db.steps.archived import files
from db.steps.archived.files import BUCKET
from db.steps.blocks import without_damaged
from db.steps.step_times import StepTime as StepTime
from db.steps.summaries import LiveSpan
from db.steps.summaries import MetricSummary as MetricSummary
from db.store import bulk
from lossguard.vocabulary.metrics import in_order
from lossguard.vocabulary.protocol import encode_number
from lossguard.vocabulary.states import IncidentState, RunState


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of one run."""

    open_incidents: int = 0
    interventions: int = 0
    waiting: int = 0
    """Items that need an operator: proposed interventions, and while the run is running, holds that were applied and
    not released, and open stalls and replay mismatches, which no policy answers."""
    incidents: int = 0
    """Open and closed ones."""


@dataclass(frozen=True, slots=True)
class RunSummary:
    """The progress of a run, and its metrics."""

    steps: int = 0
    """Done on the live line: the number of the last one plus 1."""
    stored_steps: int = 0
    """On all segments, discarded branches included."""
    metrics: Mapping[str, MetricSummary] = field(default_factory=dict)
    """Metrics that were asked for and that the run reported."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The newest step that a run reported, and the last value of each of its metrics, as the collector keeps them."""

    step: int | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """Non-finite numbers encoded."""


def standings(session: Session, *, runs: Sequence[Run]) -> dict[int, Standing]:
    """Return standings by `Run.pk` of the runs that have reported: one row of each. `summaries` reads steps too."""
    found: dict[int, Standing] = {}
    columns = sa.select(RunStatus.run_pk, RunStatus.step, RunStatus.latest_values)
    for some in bulk.key_parts(run.pk for run in runs):
        rows = session.execute(columns.where(RunStatus.run_pk.in_(some)))
        found |= {pk: Standing(step, values) for pk, step, values in rows}
    return found


def tallies(session: Session, *, runs: Sequence[Run] | None = None) -> dict[int, Tally]:
    """Counts by `Run.pk`, of those of the runs with an incident or an intervention; without `runs`, of any run."""
    found: dict[int, Tally] = {}
    for some in [None] if runs is None else bulk.key_parts(run.pk for run in runs):
        running = sa.select(Run.pk).where(Run.state == RunState.RUNNING)
        is_open, is_left = Incident.state != IncidentState.CLOSED, is_unanswered(Incident.run_pk.in_(running))
        incidents = _counts_by_run(session, Incident, some, is_open, is_left)
        asks = needs_a_person_in_sql(Intervention.run_pk.in_(running))
        interventions = _counts_by_run(session, Intervention, some, asks)
        for pk in incidents.keys() | interventions.keys():
            num, num_open, unanswered = incidents.get(pk, (0, 0, 0))
            num_interventions, asking = interventions.get(pk, (0, 0))
            found[pk] = Tally(
                open_incidents=num_open,
                interventions=num_interventions,
                waiting=unanswered + asking,
                incidents=num,
            )
    return found


def _counts_by_run(
    session: Session,
    table: type[Incident] | type[Intervention],
    pks: Sequence[int] | None,
    *conditions: sa.ColumnElement[bool],
) -> dict[int, Sequence[int]]:
    """The number of a run's rows, and of those that meet each of the conditions."""
    counts = (sa.func.count().filter(condition) for condition in conditions)
    chosen = sa.select(table.run_pk, sa.func.count(), *counts).group_by(table.run_pk)
    rows = session.execute(chosen if pks is None else chosen.where(table.run_pk.in_(pks)))
    return {pk: numbers for pk, *numbers in rows}


def num_waiting(session: Session) -> int:
    """Return the number of items that need an operator: the sum of `Tally.waiting` of all runs not archived."""
    asked = _count_of_listed(Intervention, needs_a_person_in_sql())
    unresolved = _count_of_listed(Incident, is_unanswered())
    return session.scalar(sa.select(asked + unresolved)) or 0


def _count_of_listed(
    table: type[Incident] | type[Intervention], condition: sa.ColumnElement[bool]
) -> sa.ScalarSelect[int]:
    found = sa.select(sa.func.count()).select_from(table).join(Run, Run.pk == table.run_pk)
    return found.where(condition, Run.archived_at.is_(None)).scalar_subquery()


def metric_names(session: Session) -> list[str]:
    """The names of the metrics of any run, `in_order`."""
    return in_order(set(session.scalars(sa.select(Metric.name).distinct())))


def summaries(session: Session, *, runs: Sequence[Run], metrics: Sequence[str]) -> dict[int, RunSummary]:
    """Return by `Run.pk` the progress and these metrics of each run; none if a block of them is damaged."""
    segments = queries.by_run(session, [run.pk for run in runs], Segment, by=Segment.number)
    lines = [(run, _live_spans(segments[run.pk])) for run in runs]
    found = _metrics(session, lines, metrics)
    return {run.pk: _run_summary(line, segments[run.pk], found.get(run.pk, {})) for run, line in lines}


def newest(
    session: Session, *, runs: Sequence[Run], metrics: Sequence[str], num_steps: int
) -> dict[int, tuple[RunSummary, list[StepTime]]]:
    """Return by `Run.pk` the same of the last `num_steps` steps alone, and the times of the newest ones."""
    segments = queries.by_run(session, [run.pk for run in runs], Segment, by=Segment.number)
    lines = [(run, _live_spans(segments[run.pk])) for run in runs]
    archived = files.runs_with_files(session, run_pks=[run.pk for run in runs])
    ends = [(run, _last_steps(line, num_steps, whole_buckets=run.pk in archived)) for run, line in lines]
    found = _metrics(session, ends, metrics)
    times = without_damaged(lambda some: metric_summaries.newest_times(session, lines=some), lines)
    return {
        run.pk: (_run_summary(line, segments[run.pk], found.get(run.pk, {})), times.get(run.pk, []))
        for run, line in lines
    }


def _metrics(
    session: Session, lines: Sequence[tuple[Run, Sequence[LiveSpan]]], metrics: Sequence[str]
) -> Mapping[int, Mapping[str, MetricSummary]]:
    return without_damaged(lambda some: metric_summaries.summaries(session, lines=some, metrics=metrics), lines)


def _run_summary(
    line: Sequence[LiveSpan], segments: Sequence[Segment], metrics: Mapping[str, MetricSummary]
) -> RunSummary:
    steps = max((span.last for span in line), default=0)
    return RunSummary(steps, sum(segment.num_steps for segment in segments), metrics)


def _last_steps(line: Sequence[LiveSpan], num_steps: int, *, whole_buckets: bool) -> list[LiveSpan]:
    """`whole_buckets`: some more of them, so that they begin where a bucket of the roll-ups begins."""
    first = max((span.last for span in line), default=0) - num_steps
    first -= first % BUCKET if whole_buckets else 0
    return [replace(span, first=max(span.first, first)) for span in line if span.last > first]


def _live_spans(segments: Sequence[Segment]) -> list[LiveSpan]:
    """The steps of the live line that are stored."""
    extents = {segment.number: extent(segment) for segment in segments}
    return [
        LiveSpan(part.segment, stored.first, end_of(stored), end_of(whole))
        for part in live_line(segments)
        if (whole := extents[part.segment]) and (stored := whole.within(part.first, end_of(part)))
    ]


def fill_in(session: Session, *, run: Run) -> None:
    """Write the newest step and values of an imported run, as its reports would have left them."""
    names = IN_STATUS.intersection(queries.metric_names(session, run=run))
    found = summaries(session, runs=[run], metrics=sorted(names))[run.pk]
    status = commands.run_status_of(session, run=run, now=run.last_report_at)
    status.step = found.steps - 1 if found.stored_steps else None
    status.latest_values = {name: encode_number(metric.last) for name, metric in found.metrics.items()}
