"""Reads runs: the list, one run's facts, its curves. Everything is cached, and shared by all viewers.

What may change is read a few times a second at most (`fresh`). Curves are kept for as long as the run has no new
steps: a finished run is read once. A store that cannot be read raises `StoreAway`, whose text is for the page.
"""

import math
from collections.abc import Collection, Sequence

import streamlit as st
from sqlalchemy.orm import Session

from dashboard.data import compute, rollback_costs, throughput
from dashboard.data.facts import Curve, LatestValue, LineCurves, RunCard, RunCurves, RunFacts
from dashboard.data.progress import progress
from dashboard.data.rollback_costs import Rewind
from dashboard.data.store import cached_briefly, database_url, open_store
from dashboard.figures.axis import PLAIN_STEPS, RunAxes, StepAxis, XAxis
from db import lineage, overview, queries
from db.lineage import Line, StepRange
from db.models import Run, Segment
from db.overview import Tally
from db.queries import Series
from db.steps.reader import metric_value

SPARK_STEPS, SPARK_POINTS = 1000, 60
MAX_POINTS = 800
"""Buckets per curve, at most; their width is a power of two, so that there are at least half as many: one to three
pixels each. Every one shows its least and its largest value, so that fewer hide nothing and are drawn sooner."""


def runs() -> list[tuple[Run, Tally]]:
    """All runs, the newest first."""
    return _runs(database_url())


def card(run_id: str) -> RunCard | None:
    return _card(database_url(), run_id)


def facts(run_id: str) -> RunFacts | None:
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
    """These metrics of one segment, of the live line without one, over `window` (first and last step)."""
    return _line_curves(database_url(), facts.run.id, facts.stamp, segment, tuple(metrics), x_axis, window, points)


def latest_value(facts: RunFacts, segment: int | None, metric: str) -> LatestValue | None:
    """What was last reported of a metric, which may come every so many steps; None when it never was."""
    return _latest_value(database_url(), facts.run.id, facts.stamp, segment, metric)


def rewinds(facts: RunFacts) -> list[Rewind]:
    """What the run gave up at each of its ways back."""
    return _rewinds(database_url(), facts.run.id, facts.stamp, facts)


@cached_briefly
def _runs(url: str) -> list[tuple[Run, Tally]]:
    with open_store(url) as session:
        tallies = overview.tallies(session)
        return [(run, tallies.get(run.pk, Tally())) for run in queries.runs(session)]


@cached_briefly
def _card(url: str, run_id: str) -> RunCard | None:
    with open_store(url) as session:
        run = queries.run_named(session, run_id=run_id)
        if run is None:
            return None
        newest = queries.newest_steps(session, run=run)
        sparkline: list[float] = []
        if newest:
            live, first = queries.live(session, run=run), newest[-1].step - SPARK_STEPS
            series = queries.series(session, run=run, step_ranges=live, metric="loss", first=first, points=SPARK_POINTS)
            sparkline = [value for value in series.max if value is not None]
        return RunCard(
            run=run,
            progress=progress(run, newest),
            loss=metric_value(newest[-1], "loss") if newest else None,
            tokens=metric_value(newest[-1], "tokens") if newest else None,
            sparkline=sparkline,
        )


@cached_briefly
def _facts(url: str, run_id: str) -> RunFacts | None:
    with open_store(url) as session:
        run = queries.run_named(session, run_id=run_id)
        if run is None:
            return None
        newest = queries.newest_steps(session, run=run)
        names = queries.metric_names(session, run=run)
        segments = queries.segments(session, run=run)
        return RunFacts(
            run=run,
            segments=segments,
            incidents=queries.incidents(session, run=run),
            interventions=queries.interventions(session, run=run),
            orders={order.intervention: order for order in queries.orders(session, run=run)},
            ledger=queries.skip_ledger(session, run=run),
            events=queries.events(session, run=run),
            progress=progress(run, newest),
            metrics=names + ([throughput.NAME] if throughput.derivable(names) else []),
            mfu=_last(session, run, segments, "mfu") if "mfu" in names else None,
            newest={name: metric_value(newest[-1], name) for name in names} if newest else {},
        )


def _last(session: Session, run: Run, segments: Sequence[Segment], metric: str) -> float | None:
    """The last finite value of a metric on the live line."""
    live = lineage.live_line(segments)
    series = queries.series(session, run=run, step_ranges=live, metric=metric, points=len(live))
    return next((value for value in reversed(series.last) if value is not None), None)


@st.cache_resource(show_spinner=False, max_entries=64)
def _rewinds(
    url: str,
    run_id: str,
    stamp: tuple[int, ...],  # part of the key only: new steps make a new entry
    _facts: RunFacts,
) -> list[Rewind]:
    with open_store(url) as session:
        return rollback_costs.read_rewinds(session, run=_facts.run, segments=_facts.segments, orders=_facts.orders)


@st.cache_resource(show_spinner=False, max_entries=64)
def _curves(
    url: str,
    run_id: str,
    stamp: tuple[int, ...],  # part of the key only, as above
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
        read = _Reader(session, run, window)
        live = lineage.live_line(segments)
        branches = {branch.segment: branch for branch in lineage.discarded(segments)}
        on_live = read.series(metrics, live)
        aside = {key: read.series(metrics, [branch]) for key, branch in branches.items()} if discarded else {}
        return RunCurves(
            {name: Curve(on_live[name], {key: one[name] for key, one in aside.items()}) for name in metrics},
            RunAxes(
                read.step_axis(x_axis, live),
                {key: read.step_axis(x_axis, [branch]) for key, branch in branches.items()},
            ),
        )


@st.cache_resource(show_spinner=False, max_entries=256)
def _line_curves(
    url: str,
    run_id: str,
    stamp: tuple[int, ...],  # part of the key only, as above
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
        read = _Reader(session, run, window, points)
        return LineCurves(read.series(metrics, step_ranges), read.step_axis(x_axis, step_ranges))


@st.cache_resource(show_spinner=False, max_entries=256)
def _latest_value(
    url: str, run_id: str, stamp: tuple[int, ...], segment: int | None, metric: str
) -> LatestValue | None:
    with open_store(url) as session:
        run = queries.run_named(session, run_id=run_id)
        if run is None:
            return None
        step_ranges = queries.step_ranges(session, run=run, line=Line.LIVE if segment is None else segment)
        series = _Reader(session, run, None).series([metric], step_ranges)[metric]
        while len(series) and series.non_finite[-1] and series.first_step[-1] != series.last_step[-1]:
            # Which of the bucket's values was the last one is seen when it is read again, more finely.
            window = series.first_step[-1], series.last_step[-1]
            series = _Reader(session, run, window).series([metric], step_ranges)[metric]
        if not len(series):
            return None
        value = series.last[-1]
        return LatestValue(series.last_step[-1], math.nan if value is None or series.non_finite[-1] else value)


class _Reader:
    """Reads one run over one window, at most `points` buckets of each metric."""

    def __init__(self, session: Session, run: Run, window: tuple[int, int] | None, points: int = MAX_POINTS) -> None:
        self.session, self.run, self.window, self.points = session, run, window, points

    def series(self, metrics: Sequence[str], step_ranges: Sequence[StepRange]) -> dict[str, Series]:
        if throughput.NAME not in metrics:
            return self._stored(metrics, step_ranges, self.window)
        found = self._stored({*metrics, "tokens"}, step_ranges, self.window)
        tokens = found["tokens"]
        found[throughput.NAME] = throughput.throughput(tokens, self._times(step_ranges, tokens.last_step))
        return {name: found[name] for name in metrics}

    def step_axis(self, x_axis: XAxis, step_ranges: Sequence[StepRange]) -> StepAxis:
        """Exact at the ends of every bucket of the window, and of the whole run: a mark may lie outside the window."""
        if x_axis is XAxis.STEP:
            return PLAIN_STEPS
        points: dict[int, float] = {}
        for window in {None, self.window}:
            points |= self._positions(x_axis, step_ranges, window)
        return StepAxis.through(points)

    def _positions(
        self, x_axis: XAxis, step_ranges: Sequence[StepRange], window: tuple[int, int] | None
    ) -> dict[int, float]:
        if x_axis is XAxis.TIME:
            usual = self._usual()
            series = self._stored([usual], step_ranges, window)[usual]
            times = self._times(step_ranges, sorted({*series.first_step, *series.last_step}))
            return {step: 1000 * time for step, time in times.items()}
        scale = (compute.flops_per_token(self.run.config) or 1.0) if x_axis is XAxis.FLOPS else 1.0
        tokens = self._stored(["tokens"], step_ranges, window)["tokens"]
        ends = [*zip(tokens.first_step, tokens.first, strict=True), *zip(tokens.last_step, tokens.last, strict=True)]
        return {step: scale * count for step, count in ends if count is not None}

    def _stored(
        self, metrics: Collection[str], step_ranges: Sequence[StepRange], window: tuple[int, int] | None
    ) -> dict[str, Series]:
        first, last = window or (None, None)
        return queries.many_series(
            self.session,
            run=self.run,
            step_ranges=step_ranges,
            metrics=metrics,
            first=first,
            last=last,
            points=self.points,
        )

    def _times(self, step_ranges: Sequence[StepRange], steps: Sequence[int]) -> dict[int, float]:
        return queries.times(self.session, run=self.run, step_ranges=step_ranges, steps=steps)

    def _usual(self) -> str:
        """A metric that most steps have."""
        return next(iter(queries.metric_names(self.session, run=self.run)), "loss")
