"""The curves of a run, as the viewer wants to see them: ?curves=..&x=..&smooth=..&discarded=..&steps=A-B."""

import streamlit as st

from dashboard import clock, formatting, url_state
from dashboard.data import cached, compute
from dashboard.data.facts import RunFacts
from dashboard.figures import component
from dashboard.figures.axis import Along
from dashboard.views.run import figure

USUAL = ("loss", "perplexity", "grad_norm", "log_z", "lr", "tokens_per_second", "throughput")
SMOOTH = (0, 10, 30, 100, 300, 1000, 3000)
ALONG = {Along.STEP: "Step", Along.TOKENS: "Tokens", Along.TIME: "Time", Along.FLOPS: "FLOPs"}


def show(known: RunFacts) -> None:
    if not known.metrics:
        st.info("No step has been reported yet.", icon=":material/info:")
        return
    chosen, along, smooth, discarded = wishes(known)
    shown = tuple(name for name in chosen if name in known.metrics)
    if not shown:
        st.info("Choose a curve.", icon=":material/info:")
        return
    key, zone = f"figure-{known.run.id}", st.context.timezone or "UTC"
    drawing = figure.draw(
        known, shown, along=along, window=url_state.steps(), discarded=discarded, smooth=smooth, zone=zone
    )
    component.show(drawing, key=key, label="Curves of the run", on_window=lambda: keep_window(known, key, along, zone))


def wishes(known: RunFacts) -> tuple[list[str], Along, int, bool]:
    """Curves, x axis, steps to smooth over, and whether to show discarded branches."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        usual = [name for name in USUAL if name in known.metrics]
        chosen = st.multiselect(
            "Curves",
            known.metrics,
            default=usual,
            format_func=formatting.metric_name,
            key="curves",
            bind="query-params",
        )
        along = st.segmented_control(
            "Along",
            axes(known),
            default=Along.STEP,
            required=True,
            format_func=ALONG.__getitem__,
            key="x",
            bind="query-params",
        )
        smooth = st.selectbox(
            "Smooth over", SMOOTH, format_func=smooth_name, key="smooth", bind="query-params", width=130
        )
        discarded = st.toggle("Discarded branches", value=True, key="discarded", bind="query-params")
    return chosen, along, smooth, discarded


def axes(known: RunFacts) -> list[Along]:
    """What the run's steps can be laid along."""
    counted = [Along.TOKENS] if "tokens" in known.metrics else []
    costed = [Along.FLOPS] if counted and compute.num_parameters(known.run.config) else []
    return [Along.STEP, *counted, Along.TIME, *costed]


def smooth_name(steps: int) -> str:
    return formatting.plural(steps, "step") if steps else "off"


def keep_window(known: RunFacts, key: str, along: Along, zone: str) -> None:
    bounds = component.window(key)
    if bounds is None:
        url_state.choose_steps(None)
        return
    rulers = cached.curves(known, (), along=along, window=url_state.steps()).rulers
    ruler = figure.seen_rulers(rulers, along, clock.zone(zone)).live
    url_state.choose_steps((ruler.step_at(bounds[0]), ruler.step_at(bounds[1])))
