"""What a run has cost, beside published runs."""

import streamlit as st

from dashboard import compute, data, figure, ways_back, words
from dashboard.compute import Compute
from dashboard.compute_chart import compute_figure
from dashboard.facts import RunFacts
from dashboard.figure import Packed

WIDTH = 165
CHINCHILLA = "About 20 spend a given compute best (Hoffmann et al. 2022)."
GIVEN_UP = "Done, then left on discarded branches by a rollback or a restart."
TIME = "From each step that the run went back to, until it was there again."
UNKNOWN = "A run that records `num_parameters` in its configuration and reports `tokens` is put on a scale here."


def show(known: RunFacts) -> None:
    """What the run has cost, beside published ones."""
    st.subheader("Compute", anchor=False)
    cost = Compute(compute.num_parameters(known.run.config), known.newest.get("tokens"))
    ratio = cost.tokens_per_parameter
    lost = data.lost(known)
    with st.container(horizontal=True):
        st.metric("Parameters", words.large(cost.parameters), width=WIDTH)
        st.metric("Tokens", words.large(cost.tokens), width=WIDTH)
        st.metric("Tokens per parameter", words.number(ratio), help=CHINCHILLA, width=WIDTH)
        st.metric("FLOPs (6ND)", "-" if cost.flops is None else f"{cost.flops:.2e}", width=WIDTH)
        if known.mfu is not None:
            st.metric("Model FLOPs utilisation", words.percent(known.mfu), width=WIDTH)
        st.metric("Steps given up", words.steps(sum(way.steps for way in lost)), help=GIVEN_UP, width=WIDTH)
        st.metric("Time given up", words.duration(ways_back.seconds_of(lost)), help=TIME, width=WIDTH)
    drawing = drawn(cost.parameters, cost.tokens)
    if drawing is None:
        st.caption(UNKNOWN)
    else:
        figure.show(drawing, key=f"compute-{known.run.id}", label="Compute beside published runs")


@st.cache_resource(show_spinner=False, max_entries=64)
def drawn(parameters: int | None, tokens: float | None) -> Packed | None:
    made = compute_figure(Compute(parameters, tokens))
    return None if made is None else figure.pack(made)
