"""The cached reads of the pages and the report; all viewers share them.

What may change is read a few times a second at most (`cached_briefly`). Curves stay cached as long as the run has no
new steps: a finished run is read once. When the store cannot be read, every function raises `StoreUnavailable`, whose
text is for the page.

Arguments with a leading underscore are not part of a cache key (Streamlit's convention); `stamp` is part of it only.
"""

import time
from collections.abc import Sequence
from dataclasses import replace

import streamlit as st
from sqlalchemy.orm import Session

from dashboard.axes import PLAIN_STEPS, RunAxes, XAxis
from dashboard.data import changed_rows, throughput
from dashboard.data import incident_window as windows
from dashboard.data.curve_reader import CurveReader
from dashboard.data.facts import Curve, LatestValue, LineCurves, RunCard, RunCurves, RunFacts
from dashboard.data.incident_window import IncidentWindow
from dashboard.data.progress import progress
from dashboard.data.store import cached_briefly, database_url, open_store
from db import lineage, queries
from db.goodput import reading as goodput
from db.goodput import rollback_costs
from db.goodput.accounting import Breakdown
from db.goodput.rollback_costs import Rewind
from db.lineage import Line
from db.models import Incident, Run, Segment
from db.queries import StoredProbe
from db.records import policies
from db.records.step_notes import step_notes
from db.runs import overview
from db.runs.overview import RunSummary, StepTime
from db.store.known_runs import KnownRuns
from lossguard.vocabulary.states import RunState

BREAKDOWN_SECONDS = 4.0
"""For so long the breakdown of a running run is shown, to all viewers, before it is read again."""
SPARKLINE_STEPS = 1000
MAX_POINTS = 800
"""Buckets per curve; their width is a power of two, so that there are at least half as many: one to three pixels each.
Every bucket shows its smallest and its largest value, so that fewer buckets hide nothing and are drawn sooner."""


def cards(runs: Sequence[Run]) -> list[RunCard]:
    """What the cards of these runs show. Those of runs that have changed are read, together."""
    url = database_url()
    known = _known_cards(url)
    found = {run.pk: known.current(run) for run in runs}
    changed = [run for run in runs if found[run.pk] is None]
    for run, read in zip(changed, _cards(url, changed) if changed else (), strict=True):
        known.keep(run, read)
        found[run.pk] = read
    return [replace(card, run=run) for run in runs if (card := found[run.pk]) is not None]


def facts(run_id: str) -> RunFacts | None:
    """None when the store has no such run."""
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
    return _curves(database_url(), facts.run.id, facts.stamp, tuple(metrics), x_axis, window, discarded)


def line_curves(
    facts: RunFacts,
    segment: int | None,
    metrics: Sequence[str],
    *,
    x_axis: XAxis = XAxis.STEP,
    window: tuple[int, int] | None = None,
    points: int = MAX_POINTS,
) -> LineCurves:
    """These metrics of one segment (None: the live line) over `window` (first and last step)."""
    return _line_curves(database_url(), facts.run.id, facts.stamp, segment, tuple(metrics), x_axis, window, points)


def latest_value(facts: RunFacts, segment: int | None, metric: str) -> LatestValue | None:
    """The newest value of a metric, which may be reported every so many steps only; None when it never was."""
    return _latest_value(database_url(), facts.run.id, facts.stamp, segment, metric)


def rewinds(facts: RunFacts) -> list[Rewind]:
    """Every rewind of the run, with its cost: read again when a segment has been opened or has its first steps."""
    *earlier, newest = facts.stamp
    return _rewinds(database_url(), facts.run.id, (*earlier, min(newest, 1)), facts)


def breakdown(facts: RunFacts) -> Breakdown:
    """What the time of the run was used for until it ended, or until a few seconds ago."""
    is_running = facts.run.state == RunState.RUNNING
    stamp = (time.time() // BREAKDOWN_SECONDS,) if is_running else (facts.run.finished_at, *facts.stamp)
    return _breakdown(database_url(), facts.run.id, stamp, facts.marks_stamp, facts.run)


def incident_window(facts: RunFacts, incident: Incident, window: tuple[int, int] | None = None) -> IncidentWindow:
    """The steps around an incident at full resolution, or those that a viewer asked for (`window`)."""
    steps = windows.step_window(facts, incident, window)
    last_steps = tuple((one.number, min(one.last_step or 0, steps.last)) for one in facts.segments)
    detection = windows.detection_key(facts)
    return _incident_window(database_url(), facts.run.id, incident.segment, steps, last_steps, detection, facts)


def prompts(facts: RunFacts) -> list[str]:
    """The prompts of the run's probes, in the order of their first one."""
    url, run = database_url(), facts.run
    return _prompts(url, run.id, _num_probes(url, run.id, run), run)


def probes(facts: RunFacts, prompt: str) -> list[StoredProbe]:
    """The probes of one prompt, by step."""
    url, run = database_url(), facts.run
    forks = tuple(one.fork_step for one in facts.segments)  # they decide what is on the live line
    return _probes(url, run.id, _num_probes(url, run.id, run), forks, prompt, run)


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
        return RunFacts(
            run=run,
            segments=segments,
            incidents=changed_rows.incidents(session, url=url, run=run),
            interventions=changed_rows.interventions(session, url=url, run=run),
            orders={order.intervention: order for order in queries.orders(session, run=run)},
            ledger=queries.skip_ledger(session, run=run),
            events=queries.events(session, run=run),
            progress=progress(run, times),
            metrics=names + ([throughput.DERIVED] if throughput.derivable(names) else []),
            mfu=_last_finite(session, run, segments, "mfu") if "mfu" in names else None,
            newest={} if newest is None else {name: newest.metrics.get(name) for name in names},
            layers=policies.layers(session, project=run.project, run_id=run.id),
            notes=step_notes(session, run=run),
        )


def _last_finite(session: Session, run: Run, segments: Sequence[Segment], metric: str) -> float | None:
    """The last finite value of a metric on the live line."""
    live = lineage.live_line(segments)
    series = queries.series(session, run=run, step_ranges=live, metric=metric, points=len(live))
    return next((value for value in reversed(series.last) if value is not None), None)


@st.cache_resource(show_spinner=False, max_entries=64)
def _rewinds(url: str, run_id: str, stamp: tuple[int, ...], _facts: RunFacts) -> list[Rewind]:
    with open_store(url) as session:
        return rollback_costs.read_rewinds(session, run=_facts.run, segments=_facts.segments, orders=_facts.orders)


@st.cache_resource(show_spinner=False, max_entries=64)
def _breakdown(
    url: str, run_id: str, stamp: tuple[float | None, ...], marks_stamp: tuple[float, ...], _run: Run
) -> Breakdown:
    with open_store(url) as session:
        return goodput.breakdown(session, run=_run, now=time.time())


@st.cache_resource(show_spinner=False, max_entries=64)
def _curves(
    url: str,
    run_id: str,
    stamp: tuple[int, ...],
    metrics: tuple[str, ...],
    x_axis: XAxis,
    window: tuple[int, int] | None,
    discarded: bool,
) -> RunCurves:
    with open_store(url) as session:
        run = queries.run_named(session, run_id=run_id)
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


@st.cache_resource(show_spinner=False, max_entries=256)
def _line_curves(
    url: str,
    run_id: str,
    stamp: tuple[int, ...],
    segment: int | None,
    metrics: tuple[str, ...],
    x_axis: XAxis,
    window: tuple[int, int] | None,
    points: int,
) -> LineCurves:
    with open_store(url) as session:
        run = queries.run_named(session, run_id=run_id)
        if run is None:
            return LineCurves({}, PLAIN_STEPS)
        step_ranges = queries.step_ranges(session, run=run, line=Line.LIVE if segment is None else segment)
        reader = CurveReader(session, run, window, points)
        return LineCurves(reader.series(metrics, step_ranges), reader.step_axis(x_axis, step_ranges))


@st.cache_resource(show_spinner=False, max_entries=256)
def _latest_value(
    url: str, run_id: str, stamp: tuple[int, ...], segment: int | None, metric: str
) -> LatestValue | None:
    with open_store(url) as session:
        run = queries.run_named(session, run_id=run_id)
        if run is None:
            return None
        step_ranges = queries.step_ranges(session, run=run, line=Line.LIVE if segment is None else segment)
        return CurveReader(session, run, None, MAX_POINTS).latest(metric, step_ranges)


@st.cache_resource(show_spinner=False, max_entries=64)
def _incident_window(
    url: str,
    run_id: str,
    segment: int,
    steps: windows.StepWindow,
    last_steps: tuple[tuple[int, int], ...],  # part of the key only, as the next: what is new makes a new entry
    detection: tuple[str, int],
    _facts: RunFacts,
) -> IncidentWindow:
    with open_store(url) as session:
        return windows.read_incident_window(session, _facts, segment, steps)


@cached_briefly
def _num_probes(url: str, run_id: str, _run: Run) -> int:
    with open_store(url) as session:
        return queries.num_probes(session, run=_run)


@st.cache_resource(show_spinner=False, max_entries=64)
def _prompts(url: str, run_id: str, num_probes: int, _run: Run) -> list[str]:
    with open_store(url) as session:
        return queries.prompts(session, run=_run)


@st.cache_resource(show_spinner=False, max_entries=32)
def _probes(
    url: str, run_id: str, num_probes: int, forks: tuple[int | None, ...], prompt: str, _run: Run
) -> list[StoredProbe]:
    with open_store(url) as session:
        return queries.probes(session, run=_run, prompt=prompt)
