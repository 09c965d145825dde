"""The states and the sort orders of the list of runs as a viewer reads them, and the names of a search. Pure."""

import difflib
from collections.abc import Callable, Collection, Mapping
from enum import StrEnum

from db.runs.conditions import FIELDS
from lossguard.vocabulary.run_search import METRIC, SETTING, RunOrder, Search

PAGE_SIZE = {"Cards": 20, "Table": 100}
"""Runs that a layout shows at first, and more of on request."""
MAX_READ = 1_000
"""Runs that are sorted by a column or grouped: the values of each are read."""


class SortOrder(StrEnum):
    """The values are the labels of the page."""

    ATTENTION = "needs a person first"
    NEWEST = "newest first"
    REPORT = "last report first"
    INCIDENTS = "most open incidents first"
    NAME = "by name"


ORDERS: Mapping[SortOrder, RunOrder] = {
    SortOrder.ATTENTION: RunOrder.ATTENTION,
    SortOrder.NEWEST: RunOrder.NEWEST,
    SortOrder.REPORT: RunOrder.REPORT,
    SortOrder.INCIDENTS: RunOrder.INCIDENTS,
    SortOrder.NAME: RunOrder.NAME,
}


def unknown_names(
    search: Search, *, metrics: Collection[str], settings: Collection[str], has_setting: Callable[[str], bool]
) -> dict[str, str]:
    """The names in a search that are no field, no metric and no setting of any run, and a sentence about each.

    `has_setting`: whether any run has a setting of this name; `settings` are some of them, for a suggestion.
    """
    asked = {name for name in search.names if name not in FIELDS and name.removeprefix(METRIC) not in metrics}
    unknown = (name for name in sorted(asked) if not has_setting(name.removeprefix(SETTING)))
    return {name: _unknown(name, [*sorted(FIELDS), *metrics, *settings]) for name in unknown}


def _unknown(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return f"{name}: no run has a setting or a metric of this name.{hint}"


def limit_sentence(total: int, what: str) -> str:
    """Say that not all runs were read, and how to find the wanted ones. `what`: "sorted"."""
    return (
        f"Only the {MAX_READ:,} newest of the {total:,} runs found are {what}. Narrow the search or the filters to "
        "include them all."
    )
