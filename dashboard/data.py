"""The only module of the dashboard that reads runs. Everything is cached, and shared by all viewers.

What may change is read at most once a second (`fresh`). Curves are kept for as long as the run has no new steps: a
finished run is read once. A store that cannot be read raises `StoreAway`, whose text is for the page.
"""

from collections.abc import Sequence
from itertools import chain

import streamlit as st
from sqlalchemy.orm import Session

from dashboard import compute
from dashboard.facts import Curve, Curves, RunCard, RunFacts
from dashboard.progress import progress
from dashboard.rulers import PLAIN, Along, Ruler, Rulers
from dashboard.store import database_url, fresh, open_store
from db import lineage, overview, queries
from db.lineage import Stretch
from db.models import Run
from db.overview import Tally
from db.queries import Series
from db.step_rows import metric_value

SPARK_STEPS, SPARK_POINTS = 1000, 60
POINTS = 1000
"""Buckets per curve: about one per pixel."""


def ordered_runs() -> list[tuple[Run, Tally]]:
    """All runs: those that need a person first, then running ones, then the newest."""
    return _ordered_runs(database_url())


def card(run_id: str) -> RunCard | None:
    return _card(database_url(), run_id)


def facts(run_id: str) -> RunFacts | None:
    return _facts(database_url(), run_id)


def curves(
    known: RunFacts,
    metrics: Sequence[str],
    *,
    along: Along = Along.STEP,
    window: tuple[int, int] | None = None,
    discarded: bool = True,
) -> Curves:
    """The curves of these metrics over `window` (first and last step), the whole run without one."""
    return _curves(database_url(), known.run.id, known.stamp, tuple(metrics), along, window, discarded)


@fresh
def _ordered_runs(url: str) -> list[tuple[Run, Tally]]:
    with open_store(url) as session:
        tallies = overview.tallies(session)
        found = [(run, tallies.get(run.pk, Tally())) for run in queries.runs(session)]
    return sorted(found, key=lambda pair: (pair[1].waiting == 0, pair[0].state != "running"))  # stable: newest first


@fresh
def _card(url: str, run_id: str) -> RunCard | None:
    with open_store(url) as session:
        run = queries.run_named(session, run_id=run_id)
        if run is None:
            return None
        newest = overview.newest_steps(session, run=run)
        spark: list[float] = []
        if newest:
            live, first = queries.live(session, run=run), newest[-1].step - SPARK_STEPS
            series = queries.series(session, run=run, stretches=live, metric="loss", first=first, points=SPARK_POINTS)
            spark = [value for value in series.max if value is not None]
        return RunCard(
            run=run,
            tally=overview.tallies(session).get(run.pk, Tally()),
            progress=progress(run, newest),
            loss=metric_value(newest[-1], "loss") if newest else None,
            spark=spark,
        )


@fresh
def _facts(url: str, run_id: str) -> RunFacts | None:
    with open_store(url) as session:
        run = queries.run_named(session, run_id=run_id)
        if run is None:
            return None
        newest = overview.newest_steps(session, run=run)
        names = queries.metric_names(session, run=run)
        return RunFacts(
            run=run,
            segments=queries.segments(session, run=run),
            incidents=queries.incidents(session, run=run),
            interventions=queries.interventions(session, run=run),
            orders={order.intervention: order for order in queries.orders(session, run=run)},
            ledger=queries.skip_ledger(session, run=run),
            events=queries.events(session, run=run),
            progress=progress(run, newest),
            metrics=names,
            newest={name: metric_value(newest[-1], name) for name in names} if newest else {},
        )


@st.cache_data(show_spinner=False, max_entries=64)
def _curves(
    url: str,
    run_id: str,
    stamp: tuple[int, ...],  # part of the key only: new steps make a new entry
    metrics: tuple[str, ...],
    along: Along,
    window: tuple[int, int] | None,
    discarded: bool,
) -> Curves:
    with open_store(url) as session:
        run = queries.run_named(session, run_id=run_id)
        if run is None:
            return Curves({}, Rulers())
        segments = queries.segments(session, run=run)
        read = _Reader(session, run, window)
        live = lineage.live_line(segments)
        branches = {branch.segment: branch for branch in lineage.discarded(segments)}
        kept = branches if discarded else {}
        return Curves(
            {
                name: Curve(read.series(name, live), {key: read.series(name, [one]) for key, one in kept.items()})
                for name in metrics
            },
            Rulers(
                read.ruler(along, live),
                {key: read.ruler(along, [branch]) for key, branch in branches.items()},
            ),
        )


class _Reader:
    """Reads one run over one window."""

    def __init__(self, session: Session, run: Run, window: tuple[int, int] | None) -> None:
        self.session, self.run = session, run
        self.window = window or (None, None)

    def series(self, metric: str, stretches: Sequence[Stretch]) -> Series:
        return queries.series(
            self.session,
            run=self.run,
            stretches=stretches,
            metric=metric,
            first=self.window[0],
            last=self.window[1],
            points=POINTS,
        )

    def ruler(self, along: Along, stretches: Sequence[Stretch]) -> Ruler:
        """Exact at the ends of every bucket."""
        if along is Along.STEP:
            return PLAIN
        if along is Along.TIME:
            return self._times(stretches)
        tokens = self.series("tokens", stretches)
        known = [index for index, value in enumerate(tokens.first) if value is not None]
        steps = chain.from_iterable((tokens.first_step[index], tokens.last_step[index]) for index in known)
        counts = chain.from_iterable((tokens.first[index], tokens.last[index]) for index in known)
        scale = compute.flops_per_token(self.run.config) or 1.0 if along is Along.FLOPS else 1.0
        return Ruler.of(steps, (float(count or 0) * scale for count in counts))

    def _times(self, stretches: Sequence[Stretch]) -> Ruler:
        """In milliseconds."""
        names = queries.metric_names(self.session, run=self.run)
        usual = self.series("loss" if "loss" in names else names[0], stretches) if names else Series()
        steps = sorted({*usual.first_step, *usual.last_step})
        times = queries.times(self.session, run=self.run, stretches=stretches, steps=steps)
        return Ruler.of(times.keys(), (1000 * time for time in times.values()))
