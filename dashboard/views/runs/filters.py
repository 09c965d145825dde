"""Search, filters and sort order of the list of runs, in the URL. On a narrow screen a button unfolds the filters."""

from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard.data.run_list import ListedRun
from dashboard.views.runs.columns import Column, column, ordered
from dashboard.views.runs.listing import ORDERS, SortOrder
from dashboard.views.search_box import search_box
from db.runs.fields import SHOWN_STATES
from db.runs.filters import RunFilter
from db.runs.orders import RunOrder
from lossguard.vocabulary.run_search import ARCHIVED, Search

UNFOLDED = "filters_unfolded"
"""In the session: whether a narrow screen shows the filters."""
UP, DOWN = ", ascending", ", descending"


@dataclass(frozen=True, slots=True)
class Filters:
    states: Sequence[str]
    tags: Sequence[str]
    archived: bool
    order: str
    """A SortOrder, or the label of a column with UP or DOWN."""

    @property
    def by_column(self) -> bool:
        """Whether the list is sorted by a column."""
        return self.order not in tuple(SortOrder)

    @property
    def run_order(self) -> RunOrder:
        """The order in which runs are read: by a column they are sorted afterwards."""
        return RunOrder.NEWEST if self.by_column else ORDERS[SortOrder(self.order)]

    def where(self, search: Search) -> RunFilter:
        """Without `archived`, archived runs are left out, unless the search says something of them."""
        shows_archived = self.archived or ARCHIVED in search.names
        states = tuple(self.states) or None
        return RunFilter(
            shown_states=states, tags=tuple(self.tags), archived=None if shows_archived else False, search=search
        )

    def sorted_by_column(self, rows: Sequence[ListedRun]) -> list[ListedRun]:
        return ordered(rows, self.column, descending=self.order.endswith(DOWN))

    @property
    def column(self) -> Column:
        """What it is sorted by, where that is a column."""
        return column(self.order.removesuffix(UP).removesuffix(DOWN))


def search_text() -> str:
    """The box for words and conditions."""
    return search_box("Search", key="find", placeholder="words, lr>1e-3, state:running, ..", bind="query-params")


def rows_of_controls() -> tuple[DeltaGenerator, DeltaGenerator]:
    """Where the search and the filters go, and below them what only the table has; a narrow screen folds them."""
    key = "filters-unfolded" if st.session_state.get(UNFOLDED) else "filters-folded"
    with st.container(key=key, gap="small"):
        return (
            st.container(horizontal=True, vertical_alignment="bottom", key="filters-upper"),
            st.container(horizontal=True, vertical_alignment="bottom", key="filters-lower"),
        )


def fold_button() -> None:
    """Shown on a narrow screen only."""
    count = sum(bool(st.session_state.get(name)) for name in ("state", "tags", "archived", "group"))
    label = f"Filters ({count})" if count else "Filters"
    if st.button(label, icon=":material/tune:", key="filters-button"):
        st.session_state[UNFOLDED] = not st.session_state.get(UNFOLDED, False)
        st.rerun(scope="fragment")


def filter_controls(tags: Sequence[str], columns: Sequence[Column]) -> Filters:
    """`tags`: those of all runs. `columns`: by which the runs can be sorted, too."""
    states = st.multiselect("State", SHOWN_STATES, placeholder="any", key="state", bind="query-params", width=260)
    chosen = st.multiselect("Tags", tags, placeholder="any", key="tags", bind="query-params", width=200)
    orders = [*SortOrder, *(f"{each.label}{way}" for each in columns for way in (UP, DOWN))]
    order = st.selectbox("Sort", orders, key="sort", bind="query-params", width=250)
    archived = st.toggle("Archived", key="archived", bind="query-params", help="Show archived runs too.")
    return Filters(states, chosen, archived, order)
