"""The cached reads of the pages and the report; all viewers share them.

What may change is read a few times a second at most (`cached_briefly`). All else is kept by what changes it (`_once`):
curves as long as the run has no new steps, so that a finished run is read once. When the store cannot be read, every
function raises `StoreUnavailable`, whose text is for the page.

Arguments with a leading underscore are not part of a cache key (Streamlit's convention).
"""

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import streamlit as st
from sqlalchemy.orm import Session

from dashboard.axes import PLAIN_STEPS, Floats, RunAxes, XAxis
from dashboard.data import changed_rows, collector_watch, throughput
from dashboard.data import incident_window as windows
from dashboard.data.curve_reader import CurveReader
from dashboard.data.facts import Curve, LatestValue, LineCurves, RunCard, RunCurves, RunFacts, progress
from dashboard.data.incident_window import IncidentWindow
from dashboard.data.store import cached_briefly, database_url, open_store
from db import lineage, queries
from db.goodput import reading as goodput
from db.goodput.accounting import Breakdown
from db.goodput.rollback_costs import Rewind, read_rewinds
from db.lineage import Line
from db.models import Incident, Run, RunStatus, Segment
from db.queries import StoredProbe
from db.records import policies
from db.records.step_notes import step_notes
from db.runs import overview, verdicts
from db.runs.overview import RunSummary, StepTime
from db.steps.step_times import StoredStep
from db.store.known_runs import KnownRuns
from lossguard.vocabulary.protocol import decode_number
from lossguard.vocabulary.states import RunState
from monitor.detection.expected_bands import Band

T = TypeVar("T")
BREAKDOWN_SECONDS = 4.0
"""Seconds for which the breakdown of a running run is shown, to all viewers, before it is read again."""
SPARKLINE_STEPS = 1000
MAX_POINTS = 800
"""Buckets per curve; their width is a power of two, so that there are at least half as many: one to three pixels each.
Every bucket shows its smallest and its largest value, so that fewer buckets hide nothing and are drawn sooner."""


def cards(runs: Sequence[Run]) -> list[RunCard]:
    """Return the cards of these runs. Cards of runs that have changed are read together."""
    url = database_url()
    known = _known_cards(url)
    found = {run.pk: known.current(run) for run in runs}
    changed = [run for run in runs if found[run.pk] is None]
    for run, read in zip(changed, _cards(url, changed) if changed else (), strict=True):
        known.keep(run, read)
        found[run.pk] = read
    return [replace(card, run=run) for run in runs if (card := found[run.pk]) is not None]


def facts(run_id: str) -> RunFacts | None:
    """Return the facts of a run; None if the store has no such run."""
    return _facts(database_url(), run_id)


def curves(
    facts: RunFacts,
    metrics: Sequence[str],
    *,
    x_axis: XAxis = XAxis.STEP,
    window: tuple[int, int] | None = None,
    discarded: bool = True,
) -> RunCurves:
    """The curves of these metrics over `window` (first and last step), the whole run without one."""

    def read(session: Session) -> RunCurves:
        run = queries.run_named(session, run_id=facts.run.id)
        if run is None:
            return RunCurves({}, RunAxes())
        segments = queries.segments(session, run=run)
        reader = CurveReader(session, run, window, MAX_POINTS)
        live_line = lineage.live_line(segments)
        branches = {branch.segment: branch for branch in lineage.discarded(segments)}
        live = reader.series(metrics, live_line)
        left = {number: reader.series(metrics, [branch]) for number, branch in branches.items()} if discarded else {}
        axes = {number: reader.step_axis(x_axis, [branch]) for number, branch in branches.items()}
        return RunCurves(
            {name: Curve(live[name], {number: series[name] for number, series in left.items()}) for name in metrics},
            RunAxes(reader.step_axis(x_axis, live_line), axes),
        )

    return _once("curves", facts, (facts.stamp, tuple(metrics), x_axis, window, discarded), read)


def line_curves(
    facts: RunFacts,
    segment: int | None,
    metrics: Sequence[str],
    *,
    x_axis: XAxis = XAxis.STEP,
    window: tuple[int, int] | None = None,
    points: int = MAX_POINTS,
) -> LineCurves:
    """Return these metrics of one segment (None: the live line) over `window` (first and last step)."""

    def read(session: Session) -> LineCurves:
        run = queries.run_named(session, run_id=facts.run.id)
        if run is None:
            return LineCurves({}, PLAIN_STEPS)
        step_ranges = queries.step_ranges(session, run=run, line=Line.LIVE if segment is None else segment)
        reader = CurveReader(session, run, window, points)
        return LineCurves(reader.series(metrics, step_ranges), reader.step_axis(x_axis, step_ranges))

    return _once("line", facts, (facts.stamp, segment, tuple(metrics), x_axis, window, points), read)


def latest_value(facts: RunFacts, segment: int | None, metric: str) -> LatestValue | None:
    """Return the newest value of a metric, which may be reported every few steps only; None when it never was."""

    def read(session: Session) -> LatestValue | None:
        run = queries.run_named(session, run_id=facts.run.id)
        if run is None:
            return None
        step_ranges = queries.step_ranges(session, run=run, line=Line.LIVE if segment is None else segment)
        return CurveReader(session, run, None, MAX_POINTS).latest(metric, step_ranges)

    return _once("latest", facts, (facts.stamp, segment, metric), read)


def rewinds(facts: RunFacts) -> list[Rewind]:
    """Every rewind of the run, with its cost: read again when a segment has been opened or has its first steps."""
    *earlier, newest = facts.stamp
    run, segments, orders = facts.run, facts.segments, facts.orders
    key = (*earlier, min(newest, 1))
    return _once(
        "rewinds", facts, key, lambda session: read_rewinds(session, run=run, segments=segments, orders=orders)
    )


def breakdown(facts: RunFacts) -> Breakdown:
    """Return the use of the run's time until it ended, or until a few seconds ago."""
    is_running = facts.run.state == RunState.RUNNING
    stamp = (time.time() // BREAKDOWN_SECONDS,) if is_running else (facts.run.finished_at, *facts.stamp)
    key = (stamp, facts.marks_stamp)
    return _once("breakdown", facts, key, lambda session: goodput.breakdown(session, run=facts.run, now=time.time()))


def incident_window(facts: RunFacts, incident: Incident, window: tuple[int, int] | None = None) -> IncidentWindow:
    """The steps around an incident at full resolution, or those that a viewer asked for (`window`)."""
    steps = windows.step_window(facts, incident, window)
    last_steps = tuple((one.number, min(one.last_step or 0, steps.last)) for one in facts.segments)
    key = (incident.segment, steps, last_steps, windows.detection_key(facts))
    return _once(
        "window", facts, key, lambda session: windows.read_incident_window(session, facts, incident.segment, steps)
    )


def live_band(facts: RunFacts, window: tuple[int, int] | None) -> tuple[Floats, Band] | None:
    """Steps and expected band of the loss over the newest steps in view; None where those are few, or the run ended."""
    first, end = (0, facts.progress.done) if window is None else (window[0], window[1] + 1)
    end = min(end, facts.progress.done)
    start = max(first, end - windows.MAX_LIVE_BAND_STEPS)
    if facts.run.state != RunState.RUNNING or end - start <= windows.MIN_LIVE_BAND_SHARE * (end - first):
        return None
    key = (facts.stamp, start, end, windows.detection_key(facts))
    return _once("band", facts, key, lambda session: windows.read_live_band(session, facts, start, end))


def prompts(facts: RunFacts) -> list[str]:
    """The prompts of the run's probes, in the order of their first one."""
    num_probes = _num_probes(database_url(), facts.run.id, facts.run)
    return _once("prompts", facts, (num_probes,), lambda session: queries.prompts(session, run=facts.run))


def probes(facts: RunFacts, prompt: str) -> list[StoredProbe]:
    """The probes of one prompt, by step."""
    forks = tuple(one.fork_step for one in facts.segments)  # they decide what is on the live line
    key = (_num_probes(database_url(), facts.run.id, facts.run), forks, prompt)
    return _once("probes", facts, key, lambda session: queries.probes(session, run=facts.run, prompt=prompt))


def _once(what: str, facts: RunFacts, key: tuple[Hashable, ...], read: Callable[[Session], T]) -> T:
    """Return the result of `read`, once for all viewers while `key` stays, which holds everything that changes it."""
    found: T = _kept(database_url(), what, facts.run.id, key, read)
    return found


@st.cache_resource(show_spinner=False, max_entries=512)
def _kept(url: str, what: str, run_id: str, key: tuple[Hashable, ...], _read: Callable[[Session], Any]) -> Any:
    with open_store(url) as session:
        return _read(session)


@st.cache_resource(show_spinner=False, max_entries=8)
def _known_cards(url: str) -> KnownRuns[RunCard]:
    return KnownRuns()


def _cards(url: str, runs: Sequence[Run]) -> list[RunCard]:
    with open_store(url) as session:
        newest = overview.newest(session, runs=runs, metrics=("loss", "tokens"), num_steps=SPARKLINE_STEPS)
    return [_card(run, *newest[run.pk]) for run in runs]


def _card(run: Run, summary: RunSummary, times: Sequence[StepTime]) -> RunCard:
    loss, tokens = summary.metrics.get("loss"), summary.metrics.get("tokens")
    return RunCard(
        run=run,
        progress=progress(run, times),
        loss=loss.last if loss else None,
        tokens=tokens.last if tokens else None,
        sparkline=list(loss.sparkline) if loss else [],
    )


@cached_briefly
def _facts(url: str, run_id: str) -> RunFacts | None:
    with open_store(url) as session:
        run = queries.run_named(session, run_id=run_id)
        if run is None:
            return None
        _, times = queries.newest_times(session, run=run)
        newest = queries.newest_step(session, run=run)
        names = queries.metric_names(session, run=run)
        segments = queries.segments(session, run=run)
        status = session.get(RunStatus, run.pk)
        values = {} if status is None else status.latest_values
        latest = {name: decode_number(value) for name, value in values.items() if name in names}
        return RunFacts(
            run=run,
            segments=segments,
            incidents=changed_rows.incidents(session, url=url, run=run),
            interventions=changed_rows.interventions(session, url=url, run=run),
            orders={order.intervention: order for order in queries.orders(session, run=run)},
            ledger=queries.skip_ledger(session, run=run),
            events=queries.newest_events(session, run=run),
            progress=progress(run, times),
            metrics=names + ([throughput.DERIVED] if throughput.derivable(names) else []),
            mfu=_last_finite(session, run, segments, "mfu") if "mfu" in names else None,
            newest={} if newest is None else {**latest, **_reported(newest, names)},
            verdict=verdicts.verdicts(
                session, runs=[run], now=time.time(), is_collector_down=collector_watch.is_down()
            )[run.pk],
            layers=policies.layers(session, project=run.project, run_id=run.id),
            notes=step_notes(session, run=run),
        )


def _reported(newest: StoredStep, names: Sequence[str]) -> dict[str, float | None]:
    values = ((name, newest.metrics.get(name)) for name in names)
    return {name: value for name, value in values if value is not None}


def _last_finite(session: Session, run: Run, segments: Sequence[Segment], metric: str) -> float | None:
    """The last finite value of a metric on the live line."""
    live = lineage.live_line(segments)
    series = queries.series(session, run=run, step_ranges=live, metric=metric, points=len(live))
    return next((value for value in reversed(series.last) if value is not None), None)


@cached_briefly
def _num_probes(url: str, run_id: str, _run: Run) -> int:
    with open_store(url) as session:
        return queries.num_probes(session, run=_run)
