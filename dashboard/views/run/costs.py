"""What a run has cost, beside published runs."""

import streamlit as st

from dashboard import formatting
from dashboard.data import cached, compute, rollback_costs
from dashboard.data.compute import Compute
from dashboard.data.facts import RunFacts
from dashboard.figures import component
from dashboard.figures.component import PackedFigure
from dashboard.figures.compute import compute_figure

WIDTH = 165
CHINCHILLA = "About 20 spend a given compute best (Hoffmann et al. 2022)."
GIVEN_UP = "Done, then left on discarded branches by a rollback or a restart."
TIME = "From each step that the run went back to, until it was there again."
UNKNOWN = "A run that records `num_parameters` in its configuration and reports `tokens` is put on a scale here."


def show(facts: RunFacts) -> None:
    """What the run has cost, beside published ones."""
    st.subheader("Compute", anchor=False)
    cost = Compute(compute.num_parameters(facts.run.config), facts.newest.get("tokens"))
    ratio = cost.tokens_per_parameter
    lost = cached.rewinds(facts)
    with st.container(horizontal=True):
        st.metric("Parameters", formatting.abbreviated(cost.parameters), width=WIDTH)
        st.metric("Tokens", formatting.abbreviated(cost.tokens), width=WIDTH)
        st.metric("Tokens per parameter", formatting.number(ratio), help=CHINCHILLA, width=WIDTH)
        st.metric("FLOPs (6ND)", "-" if cost.flops is None else f"{cost.flops:.2e}", width=WIDTH)
        if facts.mfu is not None:
            st.metric("Model FLOPs utilisation", formatting.percent(facts.mfu), width=WIDTH)
        st.metric("Steps given up", formatting.count(sum(way.steps for way in lost)), help=GIVEN_UP, width=WIDTH)
        st.metric("Time given up", formatting.duration(rollback_costs.total_seconds(lost)), help=TIME, width=WIDTH)
    drawing = drawn(cost.parameters, cost.tokens)
    if drawing is None:
        st.caption(UNKNOWN)
    else:
        component.show(drawing, key=f"compute-{facts.run.id}", label="Compute beside published runs")


@st.cache_resource(show_spinner=False, max_entries=64)
def drawn(parameters: int | None, tokens: float | None) -> PackedFigure | None:
    made = compute_figure(Compute(parameters, tokens))
    return None if made is None else component.pack(made)
