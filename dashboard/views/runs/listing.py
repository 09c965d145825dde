"""Filters and sort orders of the list of runs. Pure."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

from dashboard.data.progress import SILENT, is_silent
from db.models import Run
from db.overview import Tally
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

RunRow = tuple[Run, Tally]


class SortOrder(StrEnum):
    """The values are the labels of the page."""

    ATTENTION = "needs a person first"
    NEWEST = "newest first"
    REPORT = "last report first"
    INCIDENTS = "most open incidents first"
    NAME = "by name"


def tags_of(run: Run) -> list[str]:
    """Those that people gave it; until then the strings in the list under "tags" in its configuration."""
    tags = run.config.get("tags") if run.tags is None else run.tags
    return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []


def state_of(run: Run, tally: Tally, now: float) -> str:
    """One of STATES."""
    if tally.waiting:
        return NEEDS_A_PERSON
    return SILENT if is_silent(run, now) else run.state


def filtered(
    rows: Sequence[RunRow],
    *,
    text: str = "",
    states: Sequence[str] = (),
    tags: Sequence[str] = (),
    order: SortOrder = SortOrder.ATTENTION,
    archived: bool = False,
    now: float,
) -> list[RunRow]:
    """The runs that match every word of `text`, one of `states` (if there are any) and all `tags`, sorted.

    Without `archived`, the archived ones are left out.

    `rows` must be newest first; the sort is stable, so that equal runs stay newest first.
    """
    words = text.casefold().split()
    found = [
        (run, tally)
        for run, tally in rows
        if (archived or run.archived_at is None)
        and all(word in _searched_text(run) for word in words)
        and (not states or state_of(run, tally, now) in states)
        and set(tags) <= set(tags_of(run))
    ]
    return sorted(found, key=lambda row: _sort_keys(now)[order](*row))


def _searched_text(run: Run) -> str:
    devices, command = map(str, run.devices), run.command or ""
    parts = [run.project, run.name or "", run.id, run.host or "", *devices, command, *tags_of(run), run.note or ""]
    return "\n".join(parts).casefold()


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
