"""The curves of a run, as the viewer chose them: ?curves=..&x=..&smooth=..&discarded=..&steps=A-B."""

from collections.abc import Callable
from dataclasses import dataclass

import streamlit as st

from dashboard import clock, formatting, url_state
from dashboard.data import cached, compute
from dashboard.data.facts import RunFacts
from dashboard.figures import component
from dashboard.figures.axis import XAxis
from dashboard.views.run import figure
from lossguard.metrics import short_name

DEFAULT_METRICS = ("loss", "perplexity", "grad_norm", "log_z", "lr", "tokens_per_second", "throughput")
SMOOTHING_STEPS = (0, 10, 30, 100, 300, 1000, 3000)
AXIS_LABELS = {Along.STEP: "Step", Along.TOKENS: "Tokens", Along.TIME: "Time", Along.FLOPS: "FLOPs"}


@dataclass(frozen=True, slots=True)
class ChartOptions:
    metrics: list[str]
    along: Along
    smooth: int
    """Steps; 0 for no smoothing."""
    discarded: bool
    """Whether discarded branches are drawn."""


def show(facts: RunFacts) -> None:
    if not facts.metrics:
        st.info("No steps reported yet.", icon=":material/info:")
        return
    options = chart_options(facts)
    metrics = tuple(name for name in options.metrics if name in facts.metrics)
    if not metrics:
        st.info("Choose at least one curve.", icon=":material/info:")
        return
    key, zone = f"figure-{facts.run.id}", st.context.timezone or "UTC"
    drawing = figure.draw(
        facts,
        metrics,
        along=options.along,
        window=url_state.steps(),
        discarded=options.discarded,
        smooth=options.smooth,
        zone=zone,
    )
    component.show(
        drawing,
        key=key,
        label="Curves of the run",
        on_window=lambda: save_zoom(facts, component.window(key), options.along, zone),
    )


def chart_options(facts: RunFacts) -> ChartOptions:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        default = [name for name in DEFAULT_METRICS if name in facts.metrics]
        return ChartOptions(
            metrics=metric_selector(facts.metrics, default),
            along=axis_selector(axes(facts)),
            smooth=smoothing_selector(),
            discarded=st.toggle("Discarded branches", value=True, key="discarded", bind="query-params"),
        )


def metric_selector(metrics: list[str], default: list[str]) -> list[str]:
    return st.multiselect(
        "Curves", metrics, default=default, format_func=formatting.metric_name, key="curves", bind="query-params"
    )


def axis_selector(axes: list[Along], *, on_change: Callable[[], None] | None = None) -> Along:
    return st.segmented_control(
        "X axis",
        axes,
        default=Along.STEP,
        required=True,
        format_func=AXIS_LABELS.__getitem__,
        key="x",
        bind="query-params",
        on_change=on_change,
    )


def smoothing_selector() -> int:
    return st.selectbox(
        "Smoothing", SMOOTHING_STEPS, format_func=smoothing_label, key="smooth", bind="query-params", width=130
    )


def smoothing_label(steps: int) -> str:
    return formatting.plural(steps, "step") if steps else "off"


def axes(facts: RunFacts) -> list[Along]:
    """The x axes for which the run has reported enough."""
    tokens = [Along.TOKENS] if "tokens" in facts.metrics else []
    flops = [Along.FLOPS] if tokens and compute.num_parameters(facts.run.config) else []
    return [Along.STEP, *tokens, Along.TIME, *flops]


def save_zoom(facts: RunFacts, bounds: tuple[float, float] | None, along: Along, zone: str) -> None:
    """Write the range in view, which the chart gives in units of its x axis, to the URL as steps."""
    if bounds is None:
        url_state.set_steps(None)
        return
    rulers = cached.curves(facts, (), along=along, window=url_state.steps()).rulers
    ruler = figure.in_local_time(rulers, along, clock.zone(zone)).live
    url_state.set_steps((ruler.step_at(bounds[0]), ruler.step_at(bounds[1])))
