"""The list of runs: what it shows of each, and the values that a column or a sort order asks for.

A run is read again only when its revision has risen: ended runs are read once. `listed` takes the rows that are to be
shown (`dashboard.data.run_pages`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import streamlit as st

from dashboard.data.store import cached_for, database_url, open_store
from db.models import Run
from db.runs import overview
from db.runs.overview import RunSummary, Tally
from db.runs.verdicts import Verdict
from db.store.known_runs import KnownRuns
from lossguard.vocabulary.run_search import flattened
from lossguard.vocabulary.secrets import mask_json

NAMES_SECONDS = 10.0
"""Seconds for which the names of the metrics are kept."""


class CountedRun(NamedTuple):
    """A run in the list, as far as its own row and a few queries say."""

    run: Run
    tally: Tally
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class ListedRun:
    """A run of the list with its steps, metrics and settings."""

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


def metric_names() -> list[str]:
    """The metrics of any run."""
    return _metric_names(database_url())


def listed(rows: Sequence[CountedRun], metrics: Iterable[str]) -> list[ListedRun]:
    """Return these runs with their settings, their progress and these metrics. Raises StoreUnavailable."""
    url, asked = database_url(), frozenset(metrics)
    known = _known_runs(url)
    found = {run.pk: _current(known, run, asked) for run, *_ in rows}
    old = [run for run, *_ in rows if found[run.pk] is None]
    if old:
        found |= _read(url, known, old, asked)
    return [ListedRun(*row, each.summary, each.settings) for row in rows if (each := found[row.run.pk]) is not None]


def _current(known: KnownRuns[_Known], run: Run, asked: frozenset[str]) -> _Known | None:
    each = known.current(run)
    return each if each is not None and asked <= each.asked else None


def _read(url: str, known: KnownRuns[_Known], runs: Sequence[Run], asked: frozenset[str]) -> dict[int, _Known]:
    """Read runs by key into `known`, with what was asked for earlier: another column of another viewer."""
    earlier = (known.earlier(run) for run in runs)
    asked = asked.union(*(each.asked for each in earlier if each is not None))
    with open_store(url) as session:
        summaries = overview.summaries(session, runs=runs, metrics=sorted(asked))
    found = {run.pk: _Known(asked, summaries[run.pk], _settings(run)) for run in runs}
    for run in runs:
        known.keep(run, found[run.pk])
    return found


def _settings(run: Run) -> dict[str, Any]:
    return flattened(mask_json(run.config))


@st.cache_resource(show_spinner=False, max_entries=8)
def _known_runs(url: str) -> KnownRuns[_Known]:
    """Return the cache that all viewers share."""
    return KnownRuns()


@cached_for(NAMES_SECONDS)
def _metric_names(url: str) -> list[str]:
    with open_store(url) as session:
        return overview.metric_names(session)
