"""Which runs are listed, and in what order. Pure."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

from dashboard.data.progress import is_silent
from db.models import Run
from db.overview import Tally

Listed = tuple[Run, Tally]


class Order(StrEnum):
    """How a list of runs is sorted; each value is what people read."""

    ATTENTION = "needs a person first"
    NEWEST = "newest first"
    REPORT = "last report first"
    INCIDENTS = "most open incidents first"
    NAME = "by name"


def tags_of(run: Run) -> list[str]:
    """What the run's configuration has under "tags", where that is a list of texts."""
    told = run.config.get("tags")
    return [tag for tag in told if isinstance(tag, str)] if isinstance(told, list) else []


def state(run: Run, tally: Tally, now: float) -> str:
    """What a viewer filters by: the state, "silent" for a run that ought to report, or that a person is waited for."""
    if tally.waiting:
        return "needs a person"
    return "silent" if is_silent(run, now) else run.state


def listed(
    runs: Sequence[Listed],
    *,
    text: str = "",
    states: Sequence[str] = (),
    tags: Sequence[str] = (),
    order: Order = Order.ATTENTION,
    now: float,
) -> list[Listed]:
    """The runs that have every word of `text`, one of `states` (any without) and all `tags`, in this order.

    `runs` come newest first, and runs that are equal keep that order.
    """
    wanted = text.casefold().split()
    found = [
        (run, tally)
        for run, tally in runs
        if all(word in _text(run) for word in wanted)
        and (not states or state(run, tally, now) in states)
        and set(tags) <= set(tags_of(run))
    ]
    return sorted(found, key=lambda pair: _keys(now)[order](*pair))


def _text(run: Run) -> str:
    """What a search looks into."""
    devices, command = map(str, run.devices), run.command or ""
    parts = [run.project, run.name or "", run.id, run.host or "", *devices, command, *tags_of(run)]
    return "\n".join(parts).casefold()


def _keys(now: float) -> dict[Order, Callable[[Run, Tally], Any]]:
    return {
        Order.ATTENTION: lambda run, tally: (tally.waiting == 0, not is_silent(run, now), run.state != "running"),
        Order.NEWEST: lambda run, _: -run.started_at,
        Order.REPORT: lambda run, _: -run.last_report_at,
        Order.INCIDENTS: lambda _, tally: -tally.open_incidents,
        Order.NAME: lambda run, _: (run.project.casefold(), (run.name or run.id).casefold()),
    }
