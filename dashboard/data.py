"""The only module of the dashboard that reads. Everything is cached, and shared by all viewers.

What may change is read at most once a second. Curves are kept for as long as the run has no new steps: a finished
run is read once. A store that cannot be read raises `StoreAway`, whose text is for the page.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import sqlalchemy as sa
import streamlit as st
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from dashboard.facts import Curve, RunCard, RunFacts
from dashboard.progress import progress
from db import lineage, migrate, overview, queries
from db.engine import DEFAULT_URL, create_engine, reading
from db.models import Run
from db.overview import Tally
from db.queries import Series
from db.step_rows import metric_value

FRESH_SECONDS = 1.0
SPARK_STEPS, SPARK_POINTS = 1000, 60
POINTS = 1000
"""Buckets per curve: about one per pixel."""

P = ParamSpec("P")
T = TypeVar("T")


class StoreAway(Exception):
    """The store cannot be read now; the message says why and what to do."""


def database_url() -> str:
    return os.environ.get("LOSSGUARD_DATABASE_URL") or DEFAULT_URL


def ordered_runs() -> list[tuple[Run, Tally]]:
    """All runs: those that need a person first, then running ones, then the newest."""
    return _ordered_runs(database_url())


def card(run_id: str) -> RunCard | None:
    return _card(database_url(), run_id)


def facts(run_id: str) -> RunFacts | None:
    return _facts(database_url(), run_id)


def curves(
    known: RunFacts, metrics: Sequence[str], *, window: tuple[int, int] | None, discarded: bool
) -> dict[str, Curve]:
    """The curves of these metrics over `window` (first and last step), the whole run without one."""
    return _curves(database_url(), known.run.id, known.stamp, tuple(metrics), window, discarded)


@st.cache_resource
def _engine(url: str) -> sa.Engine:
    if make_url(url).get_backend_name() == "sqlite":
        # A connection per read: one that is kept would go on reading a file that was deleted or replaced.
        return create_engine(url, poolclass=sa.pool.NullPool)
    return create_engine(url, connect_args={"connect_timeout": 5})


@contextmanager
def _reading(url: str) -> Iterator[Session]:
    try:
        with reading(_engine(url)) as session:
            yield session
    except sa.exc.DBAPIError as error:
        raise StoreAway(_why(url, error)) from error


def _why(url: str, error: sa.exc.DBAPIError) -> str:
    shown = make_url(url).render_as_string(hide_password=True)
    try:
        current, newest = migrate.revisions(_engine(url))
    except sa.exc.DBAPIError as away:
        return f"The database {shown} is away: {_first_line(away)}. This page goes on by itself when it is back."
    if current is None:
        return (
            f"The database {shown} has no tables yet. The collector makes them when it starts "
            "(`python -m monitor serve`), and so does `python -m db upgrade`. This page goes on by itself then."
        )
    if current != newest:
        return (
            f"The database {shown} is at revision {current}, this dashboard reads {newest}: "
            "run `python -m db upgrade`, or start the dashboard of the collector's version."
        )
    return f"The database {shown} could not be read: {_first_line(error)}. This page tries again by itself."


def _first_line(error: sa.exc.DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0].rstrip(".") if error.orig else type(error).__name__


def _fresh(function: Callable[P, T]) -> Callable[P, T]:
    """Cache what changes while a run goes on."""
    return st.cache_data(ttl=FRESH_SECONDS, show_spinner=False, max_entries=256)(function)


@_fresh
def _ordered_runs(url: str) -> list[tuple[Run, Tally]]:
    with _reading(url) as session:
        tallies = overview.tallies(session)
        found = [(run, tallies.get(run.pk, Tally())) for run in queries.runs(session)]
    return sorted(found, key=lambda pair: (pair[1].waiting == 0, pair[0].state != "running"))  # stable: newest first


@_fresh
def _card(url: str, run_id: str) -> RunCard | None:
    with _reading(url) as session:
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


@_fresh
def _facts(url: str, run_id: str) -> RunFacts | None:
    with _reading(url) as session:
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
    window: tuple[int, int] | None,
    discarded: bool,
) -> dict[str, Curve]:
    first, last = window or (None, None)
    with _reading(url) as session:
        run = queries.run_named(session, run_id=run_id)
        if run is None:
            return {}
        segments = queries.segments(session, run=run)
        live = lineage.live_line(segments)
        branches = lineage.discarded(segments) if discarded else []

        def read(metric: str, stretches: Sequence[lineage.Stretch]) -> Series:
            return queries.series(
                session, run=run, stretches=stretches, metric=metric, first=first, last=last, points=POINTS
            )

        return {name: Curve(read(name, live), [read(name, [branch]) for branch in branches]) for name in metrics}
