"""Reads the runs for the scorecard (`monitor.detection.scorecard`) without reading their steps."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import queries
from db.lineage import Line
from db.models import Incident, Intervention, Metric, Order, Run, Segment
from db.steps import buckets, step_times
from db.steps.blocks import without_damaged
from db.steps.step_times import At
from db.store import bulk

COARSE = 1024
"""Steps of a roll-up from which the mean time of a step is read; what follows the last complete one is left out."""
COARSE_SUMS = (
    "SELECT sum(mean * count), sum(count) FROM rollups"
    " WHERE run_pk = ? AND segment = ? AND metric = ? AND level = ? AND count > 0"
)
"""Query of one segment at a time, by its key: joined, SQLite would read all roll-ups of a run."""
INCIDENT_COLUMNS = (
    *("number", "kind", "state", "signal", "onset_step", "detected_step", "peak_step", "end_step", "score", "outcome"),
)
INTERVENTION_COLUMNS = (
    *("number", "incident", "kind", "state", "attempt", "rewind_to", "skip_from", "skip_to", "lr_scale"),
)


@dataclass(frozen=True, slots=True)
class StoredSegment:
    """A segment whose first step is known; `intervention`: the number of the one whose order it carries out."""

    number: int
    fork_step: int
    last_step: int | None
    intervention: int | None


@dataclass(frozen=True, slots=True)
class StoredIncident:
    """`details`: what the detection stored, with the columns of the table."""

    segment: int
    details: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class ScorecardRun:
    """A run with its history, its incidents and its interventions."""

    id: str
    project: str
    name: str | None
    state: str
    policy: dict[str, Any] | None
    capabilities: list[Any]
    config: dict[str, Any]
    devices: list[Any]
    num_steps: int
    """Optimizer steps of all segments, whether or not each has a row."""
    step_seconds: float | None
    """Mean duration of a step: as the run reports it, otherwise from the times of its rows; None: not known."""
    segments: list[StoredSegment]
    """Segments in the order in which they were opened."""
    incidents: list[StoredIncident]
    interventions: list[dict[str, Any]]


class ChosenRun(NamedTuple):
    """A run of which the scorecard asks, at its revision."""

    pk: int
    id: str
    project: str
    started_at: float
    revision: int
    last_report_at: float


def chosen_runs(
    session: Session, *, project: str | None = None, run_id: str | None = None, since: float | None = None
) -> list[ChosenRun]:
    """The runs of a project, one run, or all, the newest first; `since`: those that reported at this time or later."""
    columns = (getattr(Run, name) for name in ChosenRun._fields)
    found = sa.select(*columns).order_by(Run.started_at.desc(), Run.pk.desc())
    found = found if project is None else found.where(Run.project == project)
    found = found if run_id is None else found.where(Run.id == run_id)
    chosen = [ChosenRun(*row) for row in session.execute(found)]
    return [run for run in chosen if since is None or run.last_report_at >= since]


def read_runs(session: Session, chosen: Sequence[ChosenRun]) -> list[ScorecardRun]:
    """Return the records of these runs for the scorecard, in their order."""
    return [run for keys in bulk.key_parts(run.pk for run in chosen) for run in _read(session, keys)]


def _read(session: Session, keys: Sequence[int]) -> list[ScorecardRun]:
    found = {run.pk: run for run in session.scalars(sa.select(Run).where(Run.pk.in_(keys)))}
    runs = [found[key] for key in keys]
    segments, seconds = _segments(session, keys), without_damaged(partial(_step_seconds, session), runs)
    incidents = queries.by_run(
        session, keys, Incident, columns=("segment", "details", *INCIDENT_COLUMNS), by=Incident.number
    )
    interventions = queries.by_run(
        session, keys, Intervention, columns=("details", *INTERVENTION_COLUMNS), by=Intervention.number
    )
    return [
        ScorecardRun(
            id=run.id,
            project=run.project,
            name=run.name,
            state=run.state,
            policy=run.policy,
            capabilities=run.capabilities,
            config=run.config,
            devices=run.devices,
            num_steps=sum(num for _, num in segments[run.pk]),
            step_seconds=seconds.get(run.pk),
            segments=[segment for segment, _ in segments[run.pk]],
            incidents=[StoredIncident(row.segment, _details(row, INCIDENT_COLUMNS)) for row in incidents[run.pk]],
            interventions=[_details(row, INTERVENTION_COLUMNS) for row in interventions[run.pk]],
        )
        for run in runs
    ]


def _segments(session: Session, keys: Sequence[int]) -> dict[int, list[tuple[StoredSegment, int]]]:
    """The segments of each run, with the number of their steps."""
    columns = (Segment.run_pk, Segment.number, Segment.fork_step, Segment.first_step, Segment.last_step)
    chosen = sa.select(*columns, Order.intervention).join(Order, Order.id == Segment.order_id, isouter=True)
    chosen = chosen.where(Segment.run_pk.in_(keys), Segment.fork_step.is_not(None))
    found: dict[int, list[tuple[StoredSegment, int]]] = defaultdict(list)
    for run, number, fork, first, last, intervention in session.execute(
        chosen.where(Segment.live_order >= 0).order_by(Segment.live_order)
    ):
        assert fork is not None  # the query asked for that
        num_steps = 0 if first is None or last is None else last - first + 1
        found[run].append((StoredSegment(number, fork, last, intervention), num_steps))
    return found


def _details(row: Any, columns: Sequence[str]) -> dict[str, Any]:
    return {**row.details, **{name: getattr(row, name) for name in columns}}


def _step_seconds(session: Session, runs: Sequence[Run]) -> dict[int, float]:
    """Mean duration of a step by `Run.pk`, where it is known. Raises DamagedBlock."""
    reported = _reported_seconds(session, runs)
    return reported | _seconds(session, [run.pk for run in runs if run.pk not in reported])


def _reported_seconds(session: Session, runs: Sequence[Run]) -> dict[int, float]:
    """The mean of `step_seconds` by `Run.pk`, of the runs that report it.

    From the complete roll-ups of COARSE steps; of a run without any, from all of its steps.
    """
    keys = [run.pk for run in runs]
    lines = sa.select(Metric.run_pk, Segment.number, Metric.number).join(Segment, Segment.run_pk == Metric.run_pk)
    lines = lines.where(Metric.name == "step_seconds", Metric.run_pk.in_(keys))
    sums = {run: [0.0, 0.0] for run in keys}
    reporting = set()
    for run, segment, metric in session.execute(lines):
        reporting.add(run)
        level = buckets.level_for(COARSE)
        ((total, count),) = bulk.read(session, COARSE_SUMS, (run, segment, metric, level))
        sums[run] = [sums[run][0] + float(total or 0), sums[run][1] + float(count or 0)]
    found = {run: total / count for run, (total, count) in sums.items() if count}
    short = [run for run in runs if run.pk in reporting - found.keys()]
    found |= {run.pk: mean for run in short if (mean := _mean(session, run)) is not None}
    return {run: mean for run, mean in found.items() if 0 < mean < math.inf}


def _mean(session: Session, run: Run) -> float | None:
    """Return the mean from buckets so wide that no archived file is read: its place may be away."""
    ranges = queries.step_ranges(session, run=run, line=Line.ALL)
    series = queries.series(session, run=run, step_ranges=ranges, metric="step_seconds", points=len(ranges))
    weighed = [(mean, count) for mean, count in zip(series.mean, series.count, strict=True) if mean is not None]
    count = sum(count for _, count in weighed)
    return sum(mean * count for mean, count in weighed) / count if count else None


def _seconds(session: Session, keys: Sequence[int]) -> dict[int, float]:
    """Seconds a step by `Run.pk`, from the first step of each segment to its last one: what lies in between counts."""
    columns = sa.select(Segment.run_pk, Segment.number, Segment.first_step, Segment.last_step)
    chosen = columns.where(Segment.run_pk.in_(keys))
    ends = []
    for run, number, first_step, last_step in session.execute(chosen):
        if first_step is not None and last_step is not None:
            ends.append((At(run, number, first_step), At(run, number, last_step)))
    times = step_times.times_of(session, list({at for pair in ends for at in pair}))
    sums: dict[int, tuple[float, int]] = {}
    for first, last in ends:
        if first in times and last in times and times[last] > times[first]:
            seconds, steps = sums.get(first.run_pk, (0.0, 0))
            sums[first.run_pk] = seconds + times[last] - times[first], steps + last.step - first.step
    return {run: seconds / steps for run, (seconds, steps) in sums.items() if steps}
