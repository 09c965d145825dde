"""Search, filters and sort order of the list of runs, in the URL. On a narrow screen a button unfolds the filters."""

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard.data import run_list
from dashboard.views.runs.columns import STEPS, Column, column
from db.run_states import SHOWN_STATES
from db.runs.conditions import FIELDS
from db.runs.filters import RunFilter
from lossguard.vocabulary.run_search import ARCHIVED, METRIC, SETTING, RunOrder, Search

PAGE_SIZE = {"Cards": 20, "Table": 100}
"""Runs that a layout shows at first, and more of on request."""
MAX_READ = 1_000
"""Runs that are sorted by a column or grouped: the values of each are read."""


class SortOrder(StrEnum):
    """The values are the labels of the page, the names those of `RunOrder`."""

    ATTENTION = "needs a person first"
    NEWEST = "newest first"
    REPORT = "last report first"
    INCIDENTS = "most open incidents first"
    NAME = "by name"


def unknown_names(search: Search, metrics: Collection[str]) -> dict[str, str]:
    """The names in a search that are no field, no metric and no setting of any run, and a sentence about each."""
    asked = {name for name in search.names if name not in FIELDS and name.removeprefix(METRIC) not in metrics}
    unknown = [name for name in sorted(asked) if not run_list.has_setting(name.removeprefix(SETTING))]
    known = [*sorted(FIELDS), *metrics, *run_list.settings()] if unknown else []
    sentences = {}
    for name in unknown:
        hint = "".join(f" Did you mean {close}?" for close in difflib.get_close_matches(name, known, n=1))
        sentences[name] = f"{name}: no run has a setting or a metric of this name.{hint}"
    return sentences


UNFOLDED = "filters_unfolded"
"""Key in the session: True if a narrow screen shows the filters."""
UP, DOWN = ", ascending", ", descending"
SORT = "sort"
"""Key in the session and in the URL: the order of the list."""


HEADERS = {
    "Run": (SortOrder.NAME, "ascending"),
    "State": (SortOrder.ATTENTION, "ascending"),
    "Open incidents": (SortOrder.INCIDENTS, "descending"),
    "Last report": (SortOrder.REPORT, "descending"),
}
"""Orders of all runs, with their directions, by the columns that every table of runs has."""


@dataclass(frozen=True, slots=True)
class Filters:
    projects: Sequence[str]
    states: Sequence[str]
    tags: Sequence[str]
    archived: bool
    order: str
    """A SortOrder, or the label of a column with UP or DOWN."""

    @property
    def by_column(self) -> bool:
        """True if the list is sorted by a column."""
        return self.order not in tuple(SortOrder)

    @property
    def run_order(self) -> RunOrder:
        """The order in which runs are read: by a column they are sorted afterwards."""
        return RunOrder.NEWEST if self.by_column else RunOrder[SortOrder(self.order).name]

    def where(self, search: Search) -> RunFilter:
        """Return the filter. Without `archived`, archived runs are left out, unless the search mentions them."""
        shows_archived = self.archived or ARCHIVED in search.names
        return RunFilter(
            projects=tuple(self.projects) or None,
            shown_states=tuple(self.states) or None,
            tags=tuple(self.tags),
            archived=None if shows_archived else False,
            search=search,
        )

    @property
    def column(self) -> Column:
        """Column that the list is sorted by, if any."""
        return column(self.order.removesuffix(UP).removesuffix(DOWN))


def rows_of_controls() -> tuple[DeltaGenerator, DeltaGenerator]:
    """Return places for the search and filters, and below for what only the table has; a narrow screen folds them."""
    key = "filters-unfolded" if st.session_state.get(UNFOLDED) else "filters-folded"
    with st.container(key=key, gap="small"):
        return (
            st.container(horizontal=True, vertical_alignment="bottom", key="filters-upper"),
            st.container(horizontal=True, vertical_alignment="bottom", key="filters-lower"),
        )


def fold_button() -> None:
    """Shown on a narrow screen only."""
    count = sum(bool(st.session_state.get(name)) for name in ("project", "state", "tags", "archived", "group"))
    label = f"Filters ({count})" if count else "Filters"
    if st.button(label, icon=":material/tune:", key="filters-button"):
        st.session_state[UNFOLDED] = not st.session_state.get(UNFOLDED, False)
        st.rerun(scope="fragment")


def filter_controls(projects: Sequence[str], tags: Sequence[str], columns: Sequence[str] | None) -> Filters:
    """`projects` and `tags`: those of all runs. `columns`: of the table, by which the runs can be sorted, too."""

    def several(label: str, offered: Sequence[str], key: str) -> list[str]:
        chosen: list[str] = st.multiselect(
            label, offered, placeholder="any", key=key, bind="query-params", width=190, select_all=False
        )
        return chosen

    among = several("Project", projects, "project")
    states, chosen = several("State", SHOWN_STATES, "state"), several("Tags", tags, "tags")
    by_column = [] if columns is None else [STEPS, *columns]
    orders = [*SortOrder, *(f"{label}{way}" for label in by_column for way in (UP, DOWN))]
    order = st.selectbox("Sort", orders, key=SORT, bind="query-params", width=230)
    archived = st.toggle("Archived", key="archived", bind="query-params", help="Show archived runs too.")
    return Filters(among, states, chosen, archived, order)


def orders_of(column: str) -> list[tuple[str, str]]:
    """The orders that clicks on the header of a column choose one after the other, each with its direction."""
    if column in HEADERS:
        return [HEADERS[column]]
    return [(f"{column}{UP}", "ascending"), (f"{column}{DOWN}", "descending")]
