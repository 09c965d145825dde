"""The curves of a run, as the viewer wants to see them: ?curves=..&x=..&smooth=..&discarded=..&steps=A-B."""

import streamlit as st

from dashboard import clock, formatting, url_state
from dashboard.data import cached, compute
from dashboard.data.facts import RunFacts
from dashboard.figures import component
from dashboard.figures.axis import XAxis
from dashboard.views.run import figure
from lossguard.metrics import short_name

USUAL = ("loss", "perplexity", "grad_norm", "log_z", "lr", "tokens_per_second", "throughput")
SMOOTH = (0, 10, 30, 100, 300, 1000, 3000)
X_AXIS_NAMES = {XAxis.STEP: "Step", XAxis.TOKENS: "Tokens", XAxis.TIME: "Time", XAxis.FLOPS: "FLOPs"}


def show(facts: RunFacts) -> None:
    if not facts.metrics:
        st.info("No step has been reported yet.", icon=":material/info:")
        return
    chosen, x_axis, smooth, discarded = wishes(facts)
    shown = tuple(name for name in chosen if name in facts.metrics)
    if not shown:
        st.info("Choose a curve.", icon=":material/info:")
        return
    key, zone = f"figure-{facts.run.id}", st.context.timezone or "UTC"
    drawing = figure.draw(
        facts, shown, x_axis=x_axis, window=url_state.steps(), discarded=discarded, smooth=smooth, zone=zone
    )
    component.show(drawing, key=key, label="Curves of the run", on_window=lambda: keep_window(facts, key, x_axis, zone))


def wishes(facts: RunFacts) -> tuple[list[str], XAxis, int, bool]:
    """Curves, x axis, steps to smooth over, and whether to show discarded branches."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        usual = [name for name in USUAL if name in facts.metrics]
        chosen = st.multiselect(
            "Curves",
            facts.metrics,
            default=usual,
            format_func=short_name,
            key="curves",
            bind="query-params",
        )
        x_axis = st.segmented_control(
            "Along",
            axes(facts),
            default=XAxis.STEP,
            required=True,
            format_func=X_AXIS_NAMES.__getitem__,
            key="x",
            bind="query-params",
        )
        smooth = st.selectbox(
            "Smooth over", SMOOTH, format_func=smooth_name, key="smooth", bind="query-params", width=130
        )
        discarded = st.toggle("Discarded branches", value=True, key="discarded", bind="query-params")
    return chosen, x_axis, smooth, discarded


def axes(facts: RunFacts) -> list[XAxis]:
    """What the run's steps can be laid along."""
    counted = [XAxis.TOKENS] if "tokens" in facts.metrics else []
    costed = [XAxis.FLOPS] if counted and compute.num_parameters(facts.run.config) else []
    return [XAxis.STEP, *counted, XAxis.TIME, *costed]


def smooth_name(steps: int) -> str:
    return formatting.plural(steps, "step") if steps else "off"


def keep_window(facts: RunFacts, key: str, x_axis: XAxis, zone: str) -> None:
    bounds = component.window(key)
    if bounds is None:
        url_state.choose_steps(None)
        return
    run_axes = cached.curves(facts, (), x_axis=x_axis, window=url_state.steps()).run_axes
    step_axis = figure.axes_on_clock(run_axes, x_axis, clock.zone(zone)).live
    url_state.choose_steps((step_axis.step_at(bounds[0]), step_axis.step_at(bounds[1])))
