"""The list of runs: what it shows of each, and the values that a search, a column or a sort order asks for.

A run is read again only when its revision has risen: a list of a thousand ended runs is read once. `listed` takes the
rows that are to be shown, so that a list in pages can pass those of one page.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import streamlit as st

from dashboard.data.store import cached_briefly, database_url, open_store
from db import overview
from db.models import Run
from db.overview import RunSummary, Tally
from lossguard.config_paths import flattened
from lossguard.masking import mask_json


@dataclass(frozen=True, slots=True)
class ListedRun:
    """A run in the list."""

    run: Run
    tally: Tally
    summary: RunSummary = field(default_factory=RunSummary)
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Its configuration by dotted path, without secrets."""


Identity = tuple[int, str, float]
"""Key, id and start of a run: a key is used again after a run was deleted, and so may its id be."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What was read of a run at some revision."""

    revision: int
    asked: frozenset[str]
    """The metrics that were asked for."""
    summary: RunSummary
    settings: Mapping[str, Any]


def metric_names() -> list[str]:
    """The metrics of any run."""
    return _metric_names(database_url())


def listed(rows: Sequence[tuple[Run, Tally]], metrics: Iterable[str]) -> list[ListedRun]:
    """These runs with their settings, their progress and these metrics. Raises StoreUnavailable."""
    url, asked = database_url(), frozenset(metrics)
    known = _known_runs(url)
    old = [run for run, _ in rows if not _is_current(known.get(_identity(run)), run, asked)]
    if old:
        known.update(_read(url, old, asked.union(*(known[key].asked for key in map(_identity, old) if key in known))))
    return [ListedRun(run, tally, known[_identity(run)].summary, known[_identity(run)].settings) for run, tally in rows]


def _is_current(known: _Known | None, run: Run, asked: frozenset[str]) -> bool:
    return known is not None and known.revision == run.revision and asked <= known.asked


def _identity(run: Run) -> Identity:
    return run.pk, run.id, run.started_at


def _read(url: str, runs: Sequence[Run], asked: frozenset[str]) -> dict[Identity, _Known]:
    with open_store(url) as session:
        summaries = overview.summaries(session, runs=runs, metrics=sorted(asked))
    return {_identity(run): _Known(run.revision, asked, summaries[run.pk], _settings(run)) for run in runs}


def _settings(run: Run) -> dict[str, Any]:
    return flattened(mask_json(run.config))


@st.cache_resource(show_spinner=False, max_entries=8)
def _known_runs(url: str) -> dict[Identity, _Known]:
    """All viewers share it."""
    return {}


@cached_briefly
def _metric_names(url: str) -> list[str]:
    with open_store(url) as session:
        return overview.metric_names(session)
