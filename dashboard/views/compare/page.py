"""Compare: several runs and segments over one axis, their results, and how their configurations differ.

In the URL: ?runs=ID,ID:SEGMENT&baseline=..&curves=..&x=..&smooth=..&log=..&linear=..&fit-all=..&view=A-B&only=..
"""

from collections.abc import Sequence

import streamlit as st

from dashboard import formatting, url_state
from dashboard.axes import XAxis
from dashboard.data import run_list
from dashboard.data.comparison.held_out import HELD_OUT_DIFFERENCE
from dashboard.figures import component
from dashboard.figures.component import PackedFigure
from dashboard.figures.curves import ChartOptions
from dashboard.views import chart, frame, states
from dashboard.views.compare import controls, figure, tables
from dashboard.views.compare.controls import FIGURE, ComparedLine, CompareOptions
from dashboard.views.compare.figure import UnreadableLine, Warnings

REFRESH_SECONDS = 2.0
EXPLANATION = (
    "Each line is the mean of a bucket of steps, and its shading spans the smallest to the largest value. "
    "A cross at the upper edge is a value that is not finite, a triangle on an edge is a value beyond the axis."
)
MISSING = {
    XAxis.TOKENS: "it reported no `tokens`",
    XAxis.FLOPS: "it reported no `tokens`, or has no `num_parameters` in its configuration",
}


def page() -> None:
    if not run_list.num_runs():
        frame.show_no_runs()
        return
    compared = controls.select_lines()
    if not compared:
        st.info("Choose two or more runs, or one run and its segments.", icon=":material/info:")
        return
    if len(compared) == 1:
        st.info("Choose another run or a segment to compare this one with.", icon=":material/info:")
    options = controls.compare_options(compared)
    legend(compared, options.baseline)
    warnings = Warnings()
    curves(compared, options, warnings)
    tables.show_results(compared, options.x_axis, options.baseline, warnings)
    tables.show_configurations(compared, options.baseline)


def legend(compared: Sequence[ComparedLine], baseline: int) -> None:
    """Show the legend above the figure, where it wraps on a phone; each label links to its run."""
    with st.container(horizontal=True, gap="medium", key="legend"):
        for position, line in enumerate(compared):
            with st.container(horizontal=True, width="content", gap="small", vertical_alignment="center"):
                kind = "solid" if line.style.dash == "solid" else "dashed"
                st.html(f'<div style="width:28px;border-top:3px {kind} {line.style.color}"></div>', width="content")
                suffix = ", baseline" if position == baseline and len(compared) > 1 else ""
                label = formatting.escape_markdown(line.label) + suffix
                st.page_link("views/run/page.py", label=label, query_params={"run": line.id.run})
                verdict = line.facts.verdict
                st.markdown(states.verdict_text(verdict, verdict.headline), width="content")


def curves(compared: Sequence[ComparedLine], options: CompareOptions, warnings: Warnings) -> None:
    if not any(line.facts.metrics for line in compared):
        st.info("No steps reported yet.", icon=":material/info:")
        return
    drawable = [line for line in compared if controls.has_x_axis(line, options.x_axis)]
    for line in compared:
        if line not in drawable:
            label = formatting.escape_markdown(line.label)
            st.warning(f"{label} is not drawn: {MISSING[options.x_axis]}.", icon=":material/straighten:")
    if not drawable or not options.metrics:
        st.info("Choose at least one curve." if drawable else "Choose another x axis.", icon=":material/info:")
        return
    view = chart.view_in_url(FIGURE, "view")
    drawing = draw_readable(drawable, compared[options.baseline], options, warnings)
    if drawing is None:
        return
    component.show(
        drawing,
        key=FIGURE,
        label="Curves of several runs",
        view=view,
        on_view=lambda: chart.save_view(FIGURE, "view", url_state.set_view),
    )
    st.caption(EXPLANATION)


def draw_readable(
    drawable: Sequence[ComparedLine], baseline: ComparedLine, options: CompareOptions, warnings: Warnings
) -> PackedFigure | None:
    """The figure of those lines whose steps can be read, and a warning for each of the others; None without any."""
    look = ChartOptions(
        x_axis=options.x_axis, window=url_state.view(), smooth=options.smooth, revision="compare", axes=options.axes
    )
    while drawable:
        has_baseline = baseline in drawable
        metrics = tuple(name for name in options.metrics if name != HELD_OUT_DIFFERENCE or has_baseline)
        try:
            return figure.draw(drawable, metrics, drawable.index(baseline) if has_baseline else 0, look)
        except UnreadableLine as error:
            warnings.show(error)
            drawable = [line for line in drawable if line is not error.line]
    return None


st.title("Compare", anchor=False)
frame.show_live(page, refresh_seconds=REFRESH_SECONDS)
