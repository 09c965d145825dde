"""Search, filters and sort order of the list of runs, in the URL. On a narrow screen a button unfolds the filters."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard import formatting
from dashboard.data.run_list import ListedRun
from dashboard.views.runs.columns import Column, column, ordered
from dashboard.views.runs.listing import STATES, SortOrder, filtered
from lossguard.run_search import Search
from lossguard.run_tags import tags_of

UNFOLDED = "filters_unfolded"
"""In the session: whether a narrow screen shows the filters."""
SEARCH_HELP = """\
Words, and conditions on fields, settings and metrics: `lr>1e-3 state:running project:gpt tag:baseline steps>=10k
loss<2.5 incidents>0 host:node-1 seed=7`. A minus excludes: `-debug -archived`. A setting is named by its path or the
last part of it, a metric means its newest value; `config.` or `metric.` in front decides. Quotes keep spaces together.
"""
UP, DOWN = ", ascending", ", descending"


@dataclass(frozen=True, slots=True)
class Filters:
    states: Sequence[str]
    tags: Sequence[str]
    archived: bool
    order: str
    """A SortOrder, or the label of a column with UP or DOWN."""

    def applied(self, rows: Sequence[ListedRun], search: Search) -> list[ListedRun]:
        by_column = self.order not in tuple(SortOrder)
        found = filtered(
            rows, search=search, states=self.states, tags=self.tags, archived=self.archived, now=time.time(),
            order=SortOrder.NEWEST if by_column else SortOrder(self.order),
        )  # fmt: skip
        if not by_column:
            return found
        return ordered(found, self.column, descending=self.order.endswith(DOWN))

    @property
    def column(self) -> Column:
        """What it is sorted by, where that is a column."""
        return column(self.order.removesuffix(UP).removesuffix(DOWN))


def search_text() -> str:
    """The box for words and conditions."""
    text: str = st.text_input(
        "Search", placeholder="words, lr>1e-3, state:running, ..", key="find", bind="query-params", width=330,
        help=SEARCH_HELP,
    )  # fmt: skip
    return text


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


def filter_controls(rows: Sequence[ListedRun], columns: Sequence[Column]) -> Filters:
    """`columns`: by which the runs can be sorted, too."""
    states = st.multiselect("State", STATES, placeholder="any", key="state", bind="query-params", width=260)
    all_tags = sorted({tag for row in rows for tag in tags_of(row.run.tags, row.run.config)})
    tags = st.multiselect("Tags", all_tags, placeholder="any", key="tags", bind="query-params", width=200)
    orders = [*SortOrder, *(f"{each.label}{way}" for each in columns for way in (UP, DOWN))]
    order = st.selectbox("Sort", orders, key="sort", bind="query-params", width=250)
    archived = st.toggle("Archived", key="archived", bind="query-params", help="Show archived runs too.")
    return Filters(states, tags, archived, order)


def show_problems(problems: Sequence[str]) -> None:
    """One sentence for each part of the search that cannot be read; the rest applies."""
    with st.container(gap=None):
        for problem in problems:
            st.caption(f":orange[:material/warning: {formatting.escape_markdown(problem)}]")
