"""The curves of a run, as the viewer chose them: ?curves=..&x=..&discarded=..&log=..&steps=A-B&last=.."""

from dataclasses import dataclass, replace
from datetime import tzinfo

import plotly.graph_objects as go  # type: ignore[import-untyped]
import streamlit as st

from dashboard import formatting, url_state
from dashboard.axes import AxisChoices, RunAxes, XAxis
from dashboard.data import cached
from dashboard.data.facts import RunFacts
from dashboard.data.store import database_url
from dashboard.data.values_file import VALUES_ROUTE, ValuesFile, values_files
from dashboard.figures import component
from dashboard.figures.component import PackedFigure, cached_figure
from dashboard.figures.curves import ChartOptions, run_figure
from dashboard.figures.marks import Marks
from dashboard.views import chart
from lossguard.vocabulary.metrics import SKIPPED, default_charts


@dataclass(frozen=True, slots=True)
class ViewOptions:
    metrics: tuple[str, ...]
    x_axis: XAxis
    smooth: int
    """Steps; 0 for no smoothing."""
    discarded: bool
    """True if discarded branches are drawn."""
    axes: AxisChoices


def draw(facts: RunFacts, options: ViewOptions, window: tuple[int, int] | None, zone: str) -> PackedFigure:
    """`window` is the first and the last step in view, None for the whole run; `zone` names a viewer's time zone."""
    key = ("run", database_url(), facts.run.id, facts.stamp, facts.marks_stamp, options, window, zone)
    return cached_figure(key, lambda: _figure(facts, options, window, zone))


def _figure(facts: RunFacts, options: ViewOptions, window: tuple[int, int] | None, zone: str) -> go.Figure:
    metrics, x_axis = options.metrics, options.x_axis
    also = (SKIPPED,) if SKIPPED in facts.metrics and SKIPPED not in metrics else ()
    read = cached.curves(facts, (*metrics, *also), x_axis=x_axis, window=window, discarded=options.discarded)
    marks = replace(Marks.of(facts, skipped=read.by_metric.get(SKIPPED)), run_id=facts.run.id)
    run_axes = in_local_time(read.run_axes, x_axis, formatting.zone(zone))
    look = ChartOptions(
        x_axis=x_axis,
        window=None if window is None else tuple(run_axes.live.at(window)),
        smooth=options.smooth,
        revision=facts.run.id,
        axes=options.axes,
        band=cached.live_band(facts, window) if "loss" in metrics else None,
    )
    return run_figure({name: read.by_metric[name] for name in metrics}, marks, run_axes, look)


def in_local_time(run_axes: RunAxes, x_axis: XAxis, zone: tzinfo) -> RunAxes:
    """Moves positions on the time axis to the viewer's time zone, and leaves those on other axes alone."""
    if x_axis is not XAxis.TIME:
        return run_axes
    return run_axes.mapped(lambda milliseconds: formatting.on_clock(milliseconds, zone))


def show(facts: RunFacts) -> None:
    if not facts.metrics:
        st.info("No steps reported yet.", icon=":material/info:")
        return
    options = view_options(facts)
    if not options.metrics:
        st.info("Choose at least one curve.", icon=":material/info:")
        return
    key, zone = f"figure-{facts.run.id}", st.context.timezone or "UTC"
    view = chart.view_in_url(key, "steps")
    window = window_in_view(facts)
    values_in_view = ValuesFile(database_url(), facts.run.id, options.metrics, window, options.discarded)
    component.show(
        draw(facts, options, window, zone),
        key=key,
        label="Curves of the run",
        title=formatting.escape_plotly(formatting.run_label(facts.run)),
        view=view | {"last": url_state.last() or ""},
        on_view=lambda: save_view(facts, key, options.x_axis, zone),
        csv=VALUES_ROUTE + values_files.name(values_in_view),
    )


def window_in_view(facts: RunFacts) -> tuple[int, int] | None:
    """First and last step; None for the whole run."""
    last, done = url_state.last(), facts.progress.done
    if last is None:
        return url_state.steps()
    count = -(-done * int(last[:-1]) // 100) if last.endswith("%") else int(last)
    return (max(0, done - count), done - 1) if 1 < count < done else None


def view_options(facts: RunFacts) -> ViewOptions:
    """Read the viewer's choices, from a popover: the browser draws the curves sooner without its controls."""
    popover = st.popover("Chart", icon=":material/tune:", key="chart-options", type="tertiary", on_change="rerun")
    shown = bool(popover.open)
    with popover:
        metrics = chart.metric_selector(facts.metrics, default_charts(facts.metrics), shown=shown)
        return ViewOptions(
            metrics=tuple(metrics),
            x_axis=chart.x_axis_selector(x_axes(facts), shown=shown),
            smooth=chart.smoothing_selector(shown=shown),
            discarded=_discarded_toggle(shown=shown),
            axes=chart.axis_choices(metrics, shown=shown),
        )


def _discarded_toggle(*, shown: bool) -> bool:
    chosen = url_state.text("discarded") != "false"

    def save() -> None:
        url_state.set_texts("discarded", [] if st.session_state["discarded"] else ["false"])

    if shown:
        chart.set_widget("discarded", chosen)
        st.toggle("Discarded branches", key="discarded", on_change=save)
    return chosen


def x_axes(facts: RunFacts) -> list[XAxis]:
    """The x axes for which the run has reported enough."""
    tokens = [XAxis.TOKENS] if "tokens" in facts.metrics else []
    flops = [XAxis.FLOPS] if tokens and facts.compute.parameters else []
    return [XAxis.STEP, *tokens, XAxis.TIME, *flops]


def save_view(facts: RunFacts, key: str, x_axis: XAxis, zone: str) -> None:
    """Write what the viewer did to the chart to the URL."""
    last = component.viewed(key).get("last")
    if last == "follow":  # as many steps as are in view
        first, end = url_state.steps() or (0, facts.progress.done - 1)
        last = url_state.last() or str(end - first + 1)
    chart.save_view(key, "steps", lambda bounds: save_zoom(facts, bounds, x_axis, zone), last=last)


def save_zoom(facts: RunFacts, bounds: tuple[float, float] | None, x_axis: XAxis, zone: str) -> None:
    """Write the range in view, which the chart gives in units of its x axis, to the URL as steps."""
    if bounds is None:
        url_state.set_steps(None)
        return
    run_axes = cached.curves(facts, (), x_axis=x_axis, window=window_in_view(facts)).run_axes
    step_axis = in_local_time(run_axes, x_axis, formatting.zone(zone)).live
    url_state.set_steps((step_axis.step_at(bounds[0]), step_axis.step_at(bounds[1])))
