"""The compute that a run has used, beside published runs."""

import streamlit as st

from dashboard import formatting
from dashboard.data import cached, compute
from dashboard.data.compute import Compute
from dashboard.data.facts import RunFacts
from dashboard.figures import component
from dashboard.figures.compute import compute_figure
from dashboard.views.cached_figure import cached_figure
from dashboard.views.frame import METRIC_WIDTH_PIXELS
from db.goodput import rollback_costs

CHINCHILLA_HELP = "About 20 is compute-optimal (Hoffmann et al. 2022)."
DISCARDED_STEPS_HELP = "Trained, then discarded by a rollback or a restart."
LOST_TIME_HELP = "From the first time the run did a restored step until it did that step again."
NO_COMPUTE = (
    "To compare this run with published ones, record `num_parameters` in its configuration and report `tokens`."
)


def show(facts: RunFacts) -> None:
    st.subheader("Compute", anchor=False)
    used = Compute(compute.num_parameters(facts.run.config), facts.newest.get("tokens"))
    show_metrics(facts, used)
    if not used.flops:
        st.caption(NO_COMPUTE)
        return
    figure = cached_figure(("compute", used.parameters, used.tokens), lambda: compute_figure(used))
    component.show(figure, key=f"compute-{facts.run.id}", label="Compute beside published runs")


def show_metrics(facts: RunFacts, used: Compute) -> None:
    rewinds = cached.rewinds(facts)
    width = METRIC_WIDTH_PIXELS
    with st.container(horizontal=True):
        st.metric("Parameters", formatting.abbreviated(used.parameters), width=width)
        st.metric("Tokens", formatting.abbreviated(used.tokens), width=width)
        ratio = formatting.number(used.tokens_per_parameter)
        st.metric("Tokens per parameter", ratio, help=CHINCHILLA_HELP, width=width)
        st.metric("FLOPs (6ND)", formatting.scientific(used.flops), width=width)
        if facts.mfu is not None:
            st.metric("Model FLOPs utilisation", formatting.percent(facts.mfu), width=width)
        discarded = formatting.short_count(sum(rewind.steps for rewind in rewinds))
        lost = formatting.duration(rollback_costs.total_seconds(rewinds))
        st.metric("Steps discarded", discarded, help=DISCARDED_STEPS_HELP, width=width)
        st.metric("Time lost", lost, help=LOST_TIME_HELP, width=width)
