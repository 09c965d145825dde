"""Pages of the list of runs, found by the database: a few statements, whatever the number of runs in the store.

All viewers who look at the same page share what was read. Every function raises StoreUnavailable.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

from dashboard.data import collector_watch
from dashboard.data.run_list import CountedRun
from dashboard.data.store import cached_briefly, cached_for, database_url, open_store
from db import queries
from db.models import Run
from db.run_states import NEEDS_A_PERSON, SILENT
from db.runs import filters, overview, pages, verdicts
from db.runs.filters import RunFilter
from db.runs.overview import Tally
from lossguard.vocabulary.run_search import RunOrder
from lossguard.vocabulary.states import RunState

CHOICES_SECONDS = 10.0
"""Seconds for which the projects and tags that a viewer can choose from are kept."""

SETTINGS_SECONDS = 60.0
"""Maximum age of settings in seconds: the configurations of many runs are read for them."""
LIVE_STATES = frozenset({NEEDS_A_PERSON, SILENT, RunState.RUNNING.value})
"""States of runs that come first in the order of attention."""


@dataclass(frozen=True, slots=True)
class FoundRuns:
    """The first runs that match."""

    rows: Sequence[CountedRun]
    total: int
    """Number of runs that match."""


def found(where: RunFilter, order: RunOrder, limit: int) -> FoundRuns:
    """The first `limit` runs that match, in this order."""
    return _found(database_url(), where, order, limit)


def found_ids(where: RunFilter, order: RunOrder, limit: int) -> list[str]:
    """The ids of the same, without reading the runs."""
    with open_store(database_url()) as session:
        some = pages.page(session, where=where, order=order, limit=limit, now=time.time(), columns=("pk", "id"))
        return [run.id for run in some.runs]


def named(run_ids: Sequence[str]) -> list[CountedRun]:
    """The runs with these ids, in this order; those that there are."""
    return _named(database_url(), tuple(run_ids)) if run_ids else []


def num_matching(where: RunFilter, run_ids: Sequence[str]) -> int:
    """Return the number of runs with these ids that match."""
    return _count(database_url(), replace(where, run_ids=tuple(run_ids)))


def called(text: str) -> list[Run]:
    """The runs that a person may mean by a text; where there are none, the newest ones."""
    with open_store(database_url()) as session:
        some = list(queries.runs_called(session, text=text)) if text else []
        return some or list(pages.page(session, where=RunFilter(), limit=5, now=time.time()).runs)


def num_runs() -> int:
    """Return the number of all runs of the store."""
    return _num_runs(database_url())


def num_waiting() -> int:
    """Return the number of items that need an operator, in all runs that are not archived."""
    return _num_waiting(database_url())


def projects() -> list[str]:
    """The projects of all runs, by name."""
    return _projects(database_url())


def tags() -> list[str]:
    """The tags of all runs, by name."""
    return _tags(database_url())


def settings() -> list[str]:
    """The settings of the newest runs by dotted path, those of most runs first."""
    return _settings(database_url())


def has_setting(name: str) -> bool:
    """True if a setting of any run has this name, which is its path or the last part of it."""
    return _has_setting(database_url(), name)


@cached_briefly
def _found(url: str, where: RunFilter, order: RunOrder, limit: int) -> FoundRuns:
    now = time.time()
    with open_store(url) as session:
        read = _attention_first if order is RunOrder.ATTENTION else _in_order
        runs, is_all = read(session, where, order, limit, now)
        total = len(runs) if is_all else pages.count(session, where=where, now=now)
        return FoundRuns(_counted(session, runs), total)


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


@cached_briefly
def _named(url: str, run_ids: tuple[str, ...]) -> list[CountedRun]:
    place = {run_id: number for number, run_id in enumerate(run_ids)}
    with open_store(url) as session:
        some = pages.page(session, where=RunFilter(run_ids=run_ids), limit=None, now=time.time()).runs
        return _counted(session, sorted(some, key=lambda run: place[run.id]))


def _counted(session: Session, runs: Sequence[Run]) -> list[CountedRun]:
    tallies, is_down = overview.tallies(session, runs=runs), collector_watch.is_down()
    judged = verdicts.verdicts(session, runs=runs, now=time.time(), is_collector_down=is_down)
    return [CountedRun(run, tallies.get(run.pk, Tally()), judged[run.pk]) for run in runs]


@cached_briefly
def _count(url: str, where: RunFilter) -> int:
    with open_store(url) as session:
        return pages.count(session, where=where, now=time.time())


@cached_briefly
def _num_runs(url: str) -> int:
    with open_store(url) as session:
        return queries.num_runs(session)


@cached_briefly
def _num_waiting(url: str) -> int:
    with open_store(url) as session:
        return overview.num_waiting(session)


@cached_for(CHOICES_SECONDS)
def _projects(url: str) -> list[str]:
    with open_store(url) as session:
        return filters.projects(session)


@cached_for(CHOICES_SECONDS)
def _tags(url: str) -> list[str]:
    with open_store(url) as session:
        return filters.tags(session)


@cached_for(SETTINGS_SECONDS)
def _settings(url: str) -> list[str]:
    with open_store(url) as session:
        return filters.settings(session)


@cached_for(CHOICES_SECONDS)
def _has_setting(url: str, name: str) -> bool:
    with open_store(url) as session:
        return filters.has_setting(session, name)
