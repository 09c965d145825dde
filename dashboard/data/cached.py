"""The cached reads of the pages and the report; all viewers share them.

What may change is read a few times a second at most (`cached_read`). All else is kept by what changes it (`_once`):
curves as long as the run has no new steps, so that a finished run is read once. When the store cannot be read, every
function raises `StoreUnavailable`, whose text is for the page.

Arguments with a leading underscore are not part of a cache key (Streamlit's convention).
"""

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, TypeVar

import streamlit as st
from sqlalchemy.orm import Session

from dashboard.axes import PLAIN_STEPS, Floats, RunAxes, XAxis
from dashboard.data import collector_watch, curve_reader
from dashboard.data import incident_window as windows
from dashboard.data.curve_reader import CurveReader
from dashboard.data.facts import Curve, LatestValue, LineCurves, RunCurves, RunFacts, progress
from dashboard.data.incident_window import IncidentWindow
from dashboard.data.store import cached_read, database_url, open_store
from db import lineage, queries
from db.goodput import reading as goodput
from db.goodput.accounting import Breakdown
from db.goodput.rollback_costs import Rewind, read_rewinds
from db.lineage import Line
from db.models import Incident, Intervention, Run, RunStatus
from db.queries import StoredProbe
from db.records import hardware, policies
from db.records.hardware import HardwareSample
from db.records.step_notes import step_notes
from db.runs import verdicts
from lossguard.vocabulary.protocol import decode_number
from lossguard.vocabulary.states import RunState
from monitor.detection.expected_bands import Band

T = TypeVar("T")
Row = TypeVar("Row", Incident, Intervention)
ROWS_SECONDS = 60.0
"""Seconds after which all rows are read again: a collector's clock may be wrong by more than OVERLAP_SECONDS."""
OVERLAP_SECONDS = 60.0
"""Overlap of two reads in seconds: clocks differ, and transactions wait."""
HARDWARE_SECONDS = 15.0
"""Seconds between two samples of the hardware. Reading all that a run keeps takes a third of a second."""
BREAKDOWN_SECONDS = 4.0
"""Seconds for which the breakdown of a running run is shown, to all viewers, before it is read again."""
MAX_POINTS = 800
"""Buckets per curve; their width is a power of two, so that there are at least half as many: one to three pixels each.
Every bucket shows its smallest and its largest value, so that fewer buckets hide nothing and are drawn sooner."""


@cached_read()
def facts(session: Session, run_id: str) -> RunFacts | None:
    """Return the facts of a run; None if the store has no such run."""
    run = queries.run_named(session, run_id=run_id)
    if run is None:
        return None
    _, times = queries.newest_times(session, run=run)
    newest = queries.newest_step(session, run=run)
    names = queries.metric_names(session, run=run)
    segments = queries.segments(session, run=run)
    status = session.get(RunStatus, run.pk)
    values = {} if status is None else status.latest_values
    reported = {} if newest is None else {name: value for name, value in newest.metrics.items() if value is not None}
    latest = {name: decode_number(value) for name, value in values.items() if name in names}
    mfu = None
    if "mfu" in names:
        live = lineage.live_line(segments)
        series = queries.series(session, run=run, step_ranges=live, metric="mfu", points=len(live))
        mfu = next((value for value in reversed(series.last) if value is not None), None)
    judged = verdicts.verdicts(session, runs=[run], now=time.time(), is_collector_down=collector_watch.is_down())
    return RunFacts(
        run=run,
        segments=segments,
        incidents=changed_rows(session, run, queries.incidents),
        interventions=changed_rows(session, run, queries.interventions),
        orders={order.intervention: order for order in queries.orders(session, run=run)},
        ledger=queries.skip_ledger(session, run=run),
        events=queries.newest_events(session, run=run),
        progress=progress(run, times),
        metrics=names + ([curve_reader.THROUGHPUT] if curve_reader.is_throughput_derivable(names) else []),
        mfu=mfu,
        newest={} if newest is None else {**latest, **reported},
        verdict=judged[run.pk],
        layers=policies.layers(session, project=run.project, run_id=run.id),
        notes=step_notes(session, run=run),
    )


class ChangedRows(Generic[Row]):
    """Rows by number, and when they were read last. Several threads may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[int, Row] = {}
        self._read_at: float | None = None

    def current(self, read: Callable[[float | None], Sequence[Row]], now: float) -> list[Row]:
        """Return all rows by number. `read` returns those that changed since a time; None: all."""
        with self._lock:
            changed = read(None if self._read_at is None else self._read_at - OVERLAP_SECONDS)
            self._rows = self._rows | {row.number: row for row in changed}
            self._read_at = now
            return [self._rows[number] for number in sorted(self._rows)]


def changed_rows(session: Session, run: Run, query: Callable[..., Sequence[Row]]) -> list[Row]:
    """Return the rows of a query by number: thousands of them are not read at every refresh of a page.

    What was read is kept for ROWS_SECONDS, and a later read adds what has changed since.
    """
    # A key is used again after a run was deleted; the time of its start tells the next run from it.
    known = _known_rows(database_url(), query.__name__, run.pk, run.id, run.started_at)
    return known.current(lambda since: query(session, run=run, changed_since=since), time.time())


@st.cache_resource(ttl=ROWS_SECONDS, show_spinner=False, max_entries=128)
def _known_rows(url: str, what: str, run_pk: int, run_id: str, started_at: float) -> ChangedRows[Any]:
    return ChangedRows()


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
        reader = CurveReader(session, facts.run, window, MAX_POINTS)
        live_line = lineage.live_line(facts.segments)
        branches = {branch.segment: branch for branch in lineage.discarded(facts.segments)}
        live = reader.series(metrics, live_line)
        left = {number: reader.series(metrics, [branch]) for number, branch in branches.items()} if discarded else {}
        axes = {number: reader.step_axis(x_axis, [branch]) for number, branch in branches.items()}
        known = {number: axis for number, axis in axes.items() if axis is not PLAIN_STEPS}
        return RunCurves(
            {name: Curve(live[name], {number: series[name] for number, series in left.items()}) for name in metrics},
            RunAxes(reader.step_axis(x_axis, live_line), known),
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
        step_ranges = lineage.step_ranges(facts.segments, Line.LIVE if segment is None else segment)
        reader = CurveReader(session, facts.run, window, points)
        return LineCurves(reader.series(metrics, step_ranges), reader.step_axis(x_axis, step_ranges))

    return _once("line", facts, (facts.stamp, segment, tuple(metrics), x_axis, window, points), read)


def batch_at(facts: RunFacts, step: int, segment: int | None = None) -> int:
    """Index of the first batch of a step of the live line, or of the line that leads to `segment`."""

    def read(session: Session) -> int:
        line = lineage.live_line(facts.segments) if segment is None else lineage.line_to(facts.segments, segment)
        return windows.read_batch(session, facts, step, line)

    return _once("batch", facts, (facts.stamp, step, segment), read)


def latest_value(facts: RunFacts, segment: int | None, metric: str) -> LatestValue | None:
    """Return the newest value of a metric, which may be reported every few steps only; None when it never was."""

    def read(session: Session) -> LatestValue | None:
        step_ranges = lineage.step_ranges(facts.segments, Line.LIVE if segment is None else segment)
        return CurveReader(session, facts.run, None, MAX_POINTS).latest(metric, step_ranges)

    return _once("latest", facts, (facts.stamp, segment, metric), read)


def rewinds(facts: RunFacts) -> list[Rewind]:
    """Every rewind of the run, with its cost: read again when a segment has been opened or has its first steps."""
    run, segments, orders = facts.run, facts.segments, facts.orders
    counts = [segment.num_steps for segment in segments]
    key = (*counts[:-1], *(min(each, 1) for each in counts[-1:]))
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
    num_probes = _num_probes(facts.run.id, facts.run)
    return _once("prompts", facts, (num_probes,), lambda session: queries.prompts(session, run=facts.run))


def probes(facts: RunFacts, prompt: str) -> list[StoredProbe]:
    forks = tuple(one.fork_step for one in facts.segments)  # they decide what is on the live line
    key = (_num_probes(facts.run.id, facts.run), forks, prompt)
    return _once("probes", facts, key, lambda session: queries.probes(session, run=facts.run, prompt=prompt))


@cached_read()
def _num_probes(session: Session, run_id: str, _run: Run) -> int:
    return queries.num_probes(session, run=_run)


@cached_read(HARDWARE_SECONDS, max_entries=8)
def hardware_samples(session: Session, run_id: str, _run: Run) -> Sequence[HardwareSample]:
    """Return all samples of a run, oldest first."""
    return hardware.samples(session, run=_run, errors_only=False)


@cached_read()
def hardware_errors(session: Session, run_id: str, _run: Run) -> Sequence[HardwareSample]:
    """Return the samples that count an error."""
    return hardware.samples(session, run=_run, errors_only=True)


def _once(what: str, facts: RunFacts, key: tuple[Hashable, ...], read: Callable[[Session], T]) -> T:
    """Return the result of `read`, once for all viewers while `key` stays, which holds everything that changes it."""
    of_run = (facts.run.id, facts.run.started_at)  # the id alone may be that of a deleted run too
    found: T = _kept(database_url(), what, of_run, key, read)
    return found


@st.cache_resource(show_spinner=False, max_entries=512)
def _kept(
    url: str, what: str, of_run: tuple[str, float], key: tuple[Hashable, ...], _read: Callable[[Session], Any]
) -> Any:
    with open_store(url) as session:
        return _read(session)
