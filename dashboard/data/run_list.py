"""The list of runs, found by the database: a few statements, whatever the number of runs in the store.

All viewers who look at the same page share what was read. `listed` adds the values that a column or a sort order asks
for: of a run they are read again only when its revision has risen, so that ended runs are read once. Every function
raises StoreUnavailable.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import streamlit as st
from sqlalchemy.orm import Session

from dashboard.data import collector_watch
from dashboard.data.facts import StepProgress, progress
from dashboard.data.store import cached_read, database_url, open_store
from db import queries
from db.models import Run
from db.run_states import NEEDS_A_PERSON, SILENT
from db.runs import filters, overview, pages, verdicts
from db.runs.filters import RunFilter
from db.runs.overview import RunSummary, Tally
from db.runs.verdicts import Verdict
from db.store.known_runs import KnownRuns
from lossguard.vocabulary.run_search import RunOrder, flattened
from lossguard.vocabulary.secrets import mask_json
from lossguard.vocabulary.states import RunState

CHOICES_SECONDS = 10.0
"""Seconds for which the projects, tags and metrics that a viewer can choose from are kept."""
SETTINGS_SECONDS = 60.0
"""Maximum age of settings in seconds: the configurations of many runs are read for them."""
SPARKLINE_STEPS = 1000
"""Newest steps whose losses are the line of a card."""
LIVE_STATES = frozenset({NEEDS_A_PERSON, SILENT, RunState.RUNNING.value})
"""States of runs that come first in the order of attention."""


@dataclass(frozen=True, slots=True)
class ListedRun:
    """A run of the list; `listed` adds its steps, metrics and settings."""

    run: Run
    tally: Tally
    verdict: Verdict
    summary: RunSummary = field(default_factory=RunSummary)
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Configuration by dotted path, without secrets."""


@dataclass(frozen=True, slots=True)
class _Known:
    """Values that were read of a run."""

    asked: frozenset[str]
    """The metrics that were asked for."""
    summary: RunSummary
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RunCard:
    """Values of a run that its card shows."""

    progress: StepProgress
    loss: float | None
    """The newest value, non-finite ones included; None when none of the newest steps has one."""
    tokens: float | None
    """Seen on the live line."""
    sparkline: list[float]
    """Largest finite loss of each bucket of the newest steps."""


def listed(rows: Sequence[ListedRun], metrics: Iterable[str]) -> list[ListedRun]:
    """Return these runs with their settings, their progress and these metrics. Raises StoreUnavailable."""
    url, asked = database_url(), frozenset(metrics)
    known = _known_runs(url)
    runs = [row.run for row in rows]
    found = {run.pk: known.current(run) for run in runs}
    old = [run for run in runs if (each := found[run.pk]) is None or not asked <= each.asked]
    if old:
        found |= _read(url, known, old, asked)
    return [
        replace(row, summary=each.summary, settings=each.settings)
        for row in rows
        if (each := found[row.run.pk]) is not None
    ]


def _read(url: str, known: KnownRuns[_Known], runs: Sequence[Run], asked: frozenset[str]) -> dict[int, _Known]:
    """Read runs by key into `known`, with what was asked for earlier: another column of another viewer."""
    earlier = (known.earlier(run) for run in runs)
    asked = asked.union(*(each.asked for each in earlier if each is not None))
    with open_store(url) as session:
        summaries = overview.summaries(session, runs=runs, metrics=sorted(asked))
    found = {run.pk: _Known(asked, summaries[run.pk], flattened(mask_json(run.config))) for run in runs}
    for run in runs:
        known.keep(run, found[run.pk])
    return found


@st.cache_resource(show_spinner=False, max_entries=8)
def _known_runs(url: str) -> KnownRuns[_Known]:
    return KnownRuns()


# What the whole store has, and what a viewer can choose from.

num_runs = cached_read()(queries.num_runs)
num_waiting = cached_read()(overview.num_waiting)
"""The number of items that need an operator, in all runs that are not archived."""
metric_names = cached_read(CHOICES_SECONDS)(overview.metric_names)
projects = cached_read(CHOICES_SECONDS)(filters.projects)
tags = cached_read(CHOICES_SECONDS)(filters.tags)
settings = cached_read(SETTINGS_SECONDS)(filters.settings)
"""The settings of the newest runs by dotted path, those of most runs first."""
has_setting = cached_read(CHOICES_SECONDS)(filters.has_setting)
"""True if a setting of any run has this name, which is its path or the last part of it."""


@dataclass(frozen=True, slots=True)
class FoundRuns:
    """The first runs that match."""

    rows: Sequence[ListedRun]
    total: int
    """Number of runs that match."""


@cached_read()
def found(session: Session, where: RunFilter, order: RunOrder, limit: int) -> FoundRuns:
    """The first `limit` runs that match, in this order."""
    now = time.time()
    read = _attention_first if order is RunOrder.ATTENTION else _in_order
    runs, is_all = read(session, where, order, limit, now)
    total = len(runs) if is_all else pages.count(session, where=where, now=now)
    return FoundRuns(_counted(session, runs), total)


def found_ids(where: RunFilter, order: RunOrder, limit: int) -> list[str]:
    """The ids of the same, without reading the runs."""
    with open_store(database_url()) as session:
        some = pages.page(session, where=where, order=order, limit=limit, now=time.time(), columns=("pk", "id"))
        return [run.id for run in some.runs]


def named(run_ids: Sequence[str]) -> list[ListedRun]:
    """The runs with these ids, in this order; those that there are."""
    return _named(tuple(run_ids)) if run_ids else []


@cached_read()
def num_matching(session: Session, where: RunFilter, run_ids: Sequence[str]) -> int:
    """Return the number of runs with these ids that match."""
    return pages.count(session, where=replace(where, run_ids=tuple(run_ids)), now=time.time())


def called(text: str) -> list[Run]:
    """The runs that a person may mean by a text; where there are none, the newest ones."""
    with open_store(database_url()) as session:
        some = list(queries.runs_called(session, text=text)) if text else []
        return some or list(pages.page(session, where=RunFilter(), limit=5, now=time.time()).runs)


def _in_order(
    session: Session, where: RunFilter, order: RunOrder, limit: int, now: float
) -> tuple[Sequence[Run], bool]:
    """The first runs, and whether they are all."""
    page = pages.page(session, where=where, order=order, limit=limit, now=now)
    return page.runs, page.next is None


def _attention_first(
    session: Session, where: RunFilter, order: RunOrder, limit: int, now: float
) -> tuple[Sequence[Run], bool]:
    """Return the page in the order of attention: the few runs that come first, then the newest others, by an index.

    To sort all runs by what is computed of each would cost more with every run that has ended.
    """
    states = LIVE_STATES if where.shown_states is None else LIVE_STATES & set(where.shown_states)
    first, is_all = _in_order(session, replace(where, shown_states=tuple(sorted(states))), order, limit, now)
    if not is_all:
        return first, False
    newest, is_all = _in_order(session, where, RunOrder.NEWEST, limit + len(first), now)
    seen = {run.pk for run in first}
    others = [run for run in newest if run.pk not in seen]
    runs = [*first, *others][:limit]
    return runs, is_all and len(first) + len(others) <= limit


@cached_read()
def _named(session: Session, run_ids: tuple[str, ...]) -> list[ListedRun]:
    place = {run_id: number for number, run_id in enumerate(run_ids)}
    some = pages.page(session, where=RunFilter(run_ids=run_ids), limit=None, now=time.time()).runs
    return _counted(session, sorted(some, key=lambda run: place[run.id]))


def _counted(session: Session, runs: Sequence[Run]) -> list[ListedRun]:
    tallies, is_down = overview.tallies(session, runs=runs), collector_watch.is_down()
    judged = verdicts.verdicts(session, runs=runs, now=time.time(), is_collector_down=is_down)
    return [ListedRun(run, tallies.get(run.pk, Tally()), judged[run.pk]) for run in runs]


def cards(runs: Sequence[Run]) -> list[RunCard]:
    """Return the cards of these runs. Cards of runs that have changed are read together."""
    url = database_url()
    known = _known_cards(url)
    found = {run.pk: known.current(run) for run in runs}
    changed = [run for run in runs if found[run.pk] is None]
    if changed:
        with open_store(url) as session:
            newest = overview.newest(session, runs=changed, metrics=("loss", "tokens"), num_steps=SPARKLINE_STEPS)
        for run in changed:
            summary, times = newest[run.pk]
            loss, tokens = summary.metrics.get("loss"), summary.metrics.get("tokens")
            found[run.pk] = read = RunCard(
                progress=progress(run, times),
                loss=loss.last if loss else None,
                tokens=tokens.last if tokens else None,
                sparkline=list(loss.sparkline) if loss else [],
            )
            known.keep(run, read)
    return [card for run in runs if (card := found[run.pk]) is not None]


@st.cache_resource(show_spinner=False, max_entries=8)
def _known_cards(url: str) -> KnownRuns[RunCard]:
    return KnownRuns()
