"""Compare: several runs and segments over one axis, what they came to, and how their configurations differ.

In the URL: ?runs=ID,ID:SEGMENT&baseline=..&curves=..&x=..&smooth=..&view=A-B&only=..
"""

from collections.abc import Sequence

import streamlit as st

from dashboard import formatting, url_state
from dashboard.data import cached
from dashboard.data.held_out import HELD_OUT_DIFFERENCE
from dashboard.figures import component
from dashboard.figures.axis import XAxis
from dashboard.views import frame, states
from dashboard.views.compare import choice, entries, figure, tables
from dashboard.views.compare.entries import Entry

REFRESH_SECONDS = 2.0
FIGURE = "figure-compare"
LEGEND = (
    "A line is the mean of a bucket of steps; the shade around it reaches from the smallest to the largest value; "
    "a cross on the upper edge is a value that is not finite."
)
UNPLACED = {
    XAxis.TOKENS: "reported no `tokens`",
    XAxis.FLOPS: "lacks `tokens` among its metrics, or `num_parameters` in its configuration",
}


def page() -> None:
    runs = [run for run, _ in cached.runs()]
    if not runs:
        st.info("No runs yet.", icon=":material/info:")
        st.page_link("views/runs/page.py", label="All runs", icon=":material/arrow_back:")
        return
    made = choice.chosen(runs)
    if not made:
        st.info("Choose two runs or more, or one run and its segments.", icon=":material/info:")
        return
    if len(made) == 1:
        st.info("One alone: choose another run to compare it with, or segments of this one.", icon=":material/info:")
    curves, x_axis, smooth, baseline = choice.wishes(made)
    legend(made, baseline)
    show_figure(made, curves, x_axis, smooth, baseline)
    tables.show_standings(made, x_axis, baseline)
    tables.show_configurations(made, baseline)


def legend(made: Sequence[Entry], baseline: int) -> None:
    """Which line is which; above the figure, where it wraps on a phone, and with the way to each run."""
    with st.container(horizontal=True, gap="medium", key="legend"):
        for place, entry in enumerate(made):
            with st.container(horizontal=True, width="content", gap="small", vertical_alignment="center"):
                kind = "solid" if entry.style.dash == "solid" else "dashed"
                st.html(f'<div style="width:28px;border-top:3px {kind} {entry.style.color}"></div>', width="content")
                label = formatting.escape_markdown(entry.label) + (
                    ", baseline" if place == baseline and len(made) > 1 else ""
                )
                st.page_link("views/run/page.py", label=label, query_params={"run": entry.choice.run})
                states.run_badge(entry.facts.run)


def show_figure(made: Sequence[Entry], curves: Sequence[str], x_axis: XAxis, smooth: int, baseline: int) -> None:
    if not any(entry.facts.metrics for entry in made):
        st.info("No step has been reported yet.", icon=":material/info:")
        return
    placed = [entry for entry in made if entries.lies_along(entry, x_axis)]
    for entry in made:
        if entry not in placed:
            st.warning(
                f"{formatting.escape_markdown(entry.label)} is not drawn: it {UNPLACED[x_axis]}.",
                icon=":material/straighten:",
            )
    held_to = made[baseline] in placed
    shown = tuple(name for name in curves if name != HELD_OUT_DIFFERENCE or held_to)
    if not placed or not shown:
        st.info("Choose a curve." if placed else "Choose another axis.", icon=":material/info:")
        return
    place = placed.index(made[baseline]) if held_to else 0
    drawing = figure.draw(placed, shown, x_axis=x_axis, view=url_state.view(), smooth=smooth, baseline=place)
    component.show(drawing, key=FIGURE, label="Curves of several runs", on_window=keep_view)
    st.caption(LEGEND)


def keep_view() -> None:
    url_state.choose_view(component.window(FIGURE))


st.title("Compare", anchor=False)
frame.follow(page, seconds=REFRESH_SECONDS)
