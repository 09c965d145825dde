"""The curves of a run, as the viewer chose them: ?curves=..&x=..&discarded=..&log=..&steps=A-B."""

from dataclasses import dataclass

import streamlit as st

from dashboard import clock, url_state
from dashboard.axes import AxisChoices, XAxis
from dashboard.data import cached, compute
from dashboard.data.facts import RunFacts
from dashboard.figures import component
from dashboard.views import chart_controls, chart_view
from dashboard.views.run import figure, tools
from lossguard.vocabulary.metrics import default_charts


@dataclass(frozen=True, slots=True)
class ViewOptions:
    metrics: list[str]
    x_axis: XAxis
    smooth: int
    """Steps; 0 for no smoothing."""
    discarded: bool
    """Whether discarded branches are drawn."""
    axes: AxisChoices


def show(facts: RunFacts) -> None:
    if not facts.metrics:
        st.info("No steps reported yet.", icon=":material/info:")
        return
    options = view_options(facts)
    metrics = tuple(name for name in options.metrics if name in facts.metrics)
    if not metrics:
        st.info("Choose at least one curve.", icon=":material/info:")
        return
    key, zone = f"figure-{facts.run.id}", st.context.timezone or "UTC"
    view = chart_view.shown(key, "steps")
    drawing = figure.draw(
        facts,
        metrics,
        x_axis=options.x_axis,
        window=url_state.steps(),
        discarded=options.discarded,
        smooth=options.smooth,
        zone=zone,
        axes=options.axes,
    )
    component.show(
        drawing,
        key=key,
        label="Curves of the run",
        title=tools.title(facts),
        view=view,
        on_view=lambda: chart_view.save(key, "steps", lambda bounds: save_zoom(facts, bounds, options.x_axis, zone)),
        csv=tools.csv_url(facts, metrics, discarded=options.discarded),
    )


def view_options(facts: RunFacts) -> ViewOptions:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        metrics = chart_controls.metric_selector(facts.metrics, default_charts(facts.metrics))
        return ViewOptions(
            metrics=metrics,
            x_axis=chart_controls.x_axis_selector(x_axes(facts)),
            smooth=chart_controls.smoothing_selector(),
            discarded=st.toggle("Discarded branches", value=True, key="discarded", bind="query-params"),
            axes=chart_controls.axis_choices(metrics),
        )


def x_axes(facts: RunFacts) -> list[XAxis]:
    """The x axes for which the run has reported enough."""
    tokens = [XAxis.TOKENS] if "tokens" in facts.metrics else []
    flops = [XAxis.FLOPS] if tokens and compute.num_parameters(facts.run.config) else []
    return [XAxis.STEP, *tokens, XAxis.TIME, *flops]


def save_zoom(facts: RunFacts, bounds: tuple[float, float] | None, x_axis: XAxis, zone: str) -> None:
    """Write the range in view, which the chart gives in units of its x axis, to the URL as steps."""
    if bounds is None:
        url_state.set_steps(None)
        return
    run_axes = cached.curves(facts, (), x_axis=x_axis, window=url_state.steps()).run_axes
    step_axis = figure.in_local_time(run_axes, x_axis, clock.zone(zone)).live
    url_state.set_steps((step_axis.step_at(bounds[0]), step_axis.step_at(bounds[1])))
