"""Filters, search and sort orders of the list of runs. Pure."""

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from dashboard.data.progress import SILENT, is_silent
from dashboard.data.run_list import ListedRun
from db.models import Run
from db.overview import Tally
from lossguard.config_paths import settings_named
from lossguard.masking import mask_command_line
from lossguard.run_search import ARCHIVED, METRIC, SETTING, Search, settings_or_metric
from lossguard.run_tags import tags_of
from lossguard.states import RunState

NEEDS_A_PERSON = "needs a person"
STATES = (
    NEEDS_A_PERSON,
    RunState.RUNNING.value,
    SILENT,
    RunState.FINISHED.value,
    RunState.INTERRUPTED.value,
    RunState.FAILED.value,
)
"""What a viewer can filter by."""

FIELDS: Mapping[str, Callable[[ListedRun, float], list[Any]]] = {
    "state": lambda row, now: states_of(row.run, row.tally, now),
    "project": lambda row, _: [row.run.project],
    "name": lambda row, _: [row.run.name or row.run.id],
    "id": lambda row, _: [row.run.id],
    "tag": lambda row, _: tags_of(row.run.tags, row.run.config),
    "host": lambda row, _: [row.run.host or ""],
    "device": lambda row, _: row.run.devices,
    "command": lambda row, _: [mask_command_line(row.run.command or "")],
    "note": lambda row, _: [row.run.note or ""],
    ARCHIVED: lambda row, _: [row.run.archived_at is not None],
    "steps": lambda row, _: [row.summary.steps],
    "incidents": lambda row, _: [row.tally.incidents],
    "open_incidents": lambda row, _: [row.tally.open_incidents],
    "interventions": lambda row, _: [row.tally.interventions],
}
"""Names of a search that every run has: their values, at a time."""


class SortOrder(StrEnum):
    """The values are the labels of the page."""

    ATTENTION = "needs a person first"
    NEWEST = "newest first"
    REPORT = "last report first"
    INCIDENTS = "most open incidents first"
    NAME = "by name"


def state_of(run: Run, tally: Tally, now: float) -> str:
    """One of STATES."""
    return states_of(run, tally, now)[0]


def states_of(run: Run, tally: Tally, now: float) -> list[str]:
    """Those of STATES that a search finds it by; the first one is the one to filter by."""
    state = SILENT if is_silent(run, now) else run.state
    return [NEEDS_A_PERSON, state] if tally.waiting else [state]


def filtered(
    rows: Sequence[ListedRun],
    *,
    search: Search | None = None,
    states: Sequence[str] = (),
    tags: Sequence[str] = (),
    order: SortOrder = SortOrder.ATTENTION,
    archived: bool = False,
    now: float,
) -> list[ListedRun]:
    """The runs that match the search, one of `states` (if there are any) and all `tags`, sorted.

    Without `archived`, the archived ones are left out, unless the search says something of them.

    `rows` must be newest first; the sort is stable, so that equal runs stay newest first.
    """
    search = search or Search()
    archived = archived or ARCHIVED in search.names
    found = [
        row
        for row in rows
        if (archived or row.run.archived_at is None)
        and (not states or state_of(row.run, row.tally, now) in states)
        and set(tags) <= set(tags_of(row.run.tags, row.run.config))
        and search.matches(_searched_text(row.run), lambda name, row=row: values_of(row, name, now))  # type: ignore[misc]
    ]
    key = _sort_keys(now)[order]
    return sorted(found, key=lambda row: key(row.run, row.tally))


def values_of(row: ListedRun, name: str, now: float) -> list[Any]:
    """What a search means by a name: a field, a setting, or the newest value of a metric; the first that there is."""
    if name in FIELDS:
        return FIELDS[name](row, now)
    metrics = row.summary.metrics
    return settings_or_metric(name, row.settings, lambda metric: metrics[metric].last if metric in metrics else None)


def searched_metrics(search: Search, metrics: Collection[str]) -> set[str]:
    """The metrics that a search may ask for."""
    return {name.removeprefix(METRIC) for name in search.names if name not in FIELDS} & set(metrics)


def unknown_names(search: Search, rows: Iterable[ListedRun], metrics: Collection[str]) -> dict[str, str]:
    """The names in a search that are no field, no metric and no setting of any run, and a sentence about each."""
    asked = {name for name in search.names if name not in FIELDS and name.removeprefix(METRIC) not in metrics}
    paths: dict[str, None] = {}
    for row in rows if asked else ():
        paths |= dict.fromkeys(row.settings)
    return {
        name: _unknown(name, [*FIELDS, *metrics, *paths])
        for name in sorted(asked)
        if not settings_named(paths, name.removeprefix(SETTING))
    }


def _unknown(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return f"{name}: no run has a setting or a metric of this name.{hint}"


def _searched_text(run: Run) -> str:
    devices, command = map(str, run.devices), run.command or ""
    tags = tags_of(run.tags, run.config)
    parts = [run.project, run.name or "", run.id, run.host or "", *devices, command, *tags, run.note or ""]
    return "\n".join(parts)


def _sort_keys(now: float) -> dict[SortOrder, Callable[[Run, Tally], Any]]:
    return {
        SortOrder.ATTENTION: lambda run, tally: (
            tally.waiting == 0,
            not is_silent(run, now),
            run.state != RunState.RUNNING,
        ),
        SortOrder.NEWEST: lambda run, _: -run.started_at,
        SortOrder.REPORT: lambda run, _: -run.last_report_at,
        SortOrder.INCIDENTS: lambda _, tally: -tally.open_incidents,
        SortOrder.NAME: lambda run, _: (run.project.casefold(), (run.name or run.id).casefold()),
    }
