"""Parts below a run's notes: the use of its time, its sources and layers, its hardware, and its compute."""

import streamlit as st

from dashboard import formatting
from dashboard.data import cached
from dashboard.data.facts import RunFacts
from dashboard.figures import component
from dashboard.figures.component import cached_figure
from dashboard.figures.compute import CAUSE_NAMES, compute_figure, goodput_figure, largest_loss, lost_seconds
from dashboard.figures.line_panels import family_figure, hardware_figure
from dashboard.views.frame import METRIC_WIDTH_PIXELS
from db.goodput import rollback_costs
from db.goodput.accounting import TimeCause
from lossguard.vocabulary.hardware import describe_errors
from lossguard.vocabulary.metrics import family_of

GOODPUT_HELP = "The share of the time since the start that went into the steps of the live line."
LOST_HELP = "All other time. Each second has one cause."
CHINCHILLA_HELP = "About 20 is compute-optimal (Hoffmann et al. 2022)."
DISCARDED_STEPS_HELP = "Trained, then discarded by a rollback or a restart."
LOST_TIME_HELP = "From the first time the run did a restored step until it did that step again."
NO_COMPUTE = (
    "To compare this run with published ones, record `num_parameters` in its configuration and report `tokens`."
)
MAX_SERIES = 32
MAX_ERRORS = 20
"""The newest errors, which are listed."""


def goodput(facts: RunFacts) -> None:
    breakdown = cached.breakdown(facts)
    figure = goodput_figure(breakdown)
    if figure is None:
        return
    st.subheader("Goodput", anchor=False)
    width, largest = METRIC_WIDTH_PIXELS, largest_loss(breakdown)
    with st.container(horizontal=True):
        st.metric("Goodput", formatting.percent(breakdown.goodput), help=GOODPUT_HELP, width=width)
        st.metric("Trained", formatting.duration(breakdown.seconds[TimeCause.TRAINING]), width=width)
        st.metric("Not training", formatting.duration(lost_seconds(breakdown)), help=LOST_HELP, width=width)
        if largest is not None:
            st.metric("Biggest time sink", CAUSE_NAMES[largest], width=width)
    component.show(figure, key=f"goodput-{facts.run.id}", label="What the time of the run was used for")


def families(facts: RunFacts) -> None:
    """Show the figure of the families; nothing for a run without them."""
    names = tuple(name for name in facts.metrics if family_of(name) is not None)[:MAX_SERIES]
    if not names:
        return
    curves = cached.curves(facts, names, discarded=False)
    figure = family_figure(curves.by_metric, revision=f"families-{facts.run.id}")
    if figure is not None:
        st.subheader("Sources and layers", anchor=False)
        component.show(figure, key=f"families-{facts.run.id}", label="Losses of sources and grad norms of layers")


def hardware(facts: RunFacts) -> None:
    """Show the hardware; nothing for a run without samples."""
    samples = cached.hardware_samples(facts.run.id, facts.run)
    if not samples:
        return
    st.subheader("Hardware", anchor=False)
    zone = formatting.zone(st.context.timezone)
    errors = [sample for sample in samples if sample.num_errors]
    lines = []
    for sample in errors[::-1][:MAX_ERRORS]:
        step = "before the first step" if sample.step is None else f"by step {sample.step:,}"
        where = f"{describe_errors(sample.readings)} of {sample.device} on {sample.host}"
        lines.append(f"{where}, {step} ({formatting.moment(sample.time, zone)})")
    if lines:
        st.markdown(formatting.bullet_list(lines))
    figure = hardware_figure(samples, zone, revision=f"hardware-{facts.run.id}")
    if figure is not None:
        component.show(figure, key=f"hardware-{facts.run.id}", label="Hardware of the run")


def compute(facts: RunFacts) -> None:
    st.subheader("Compute", anchor=False)
    used, rewinds, width = facts.compute, cached.rewinds(facts), METRIC_WIDTH_PIXELS
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
    if used.flops:
        figure = cached_figure(("compute", used.parameters, used.tokens), lambda: compute_figure(used))
        component.show(figure, key=f"compute-{facts.run.id}", label="Compute beside published runs")
    else:
        st.caption(NO_COMPUTE)
