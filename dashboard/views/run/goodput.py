"""Share of a run's time that trained the model, and causes of the rest."""

import streamlit as st

from dashboard import formatting
from dashboard.data import cached
from dashboard.data.facts import RunFacts
from dashboard.data.goodput import NAMES, largest_loss, lost_seconds
from dashboard.figures import component
from dashboard.figures.goodput import goodput_figure
from dashboard.views.frame import METRIC_WIDTH_PIXELS
from db.goodput.accounting import Breakdown, TimeCause

GOODPUT_HELP = "The share of the time since the start that went into the steps of the live line."
LOST_HELP = "All other time. Each second has one cause."


def show(facts: RunFacts) -> None:
    breakdown = cached.breakdown(facts)
    figure = goodput_figure(breakdown)
    if figure is None:
        return
    st.subheader("Goodput", anchor=False)
    show_metrics(breakdown)
    component.show(figure, key=f"goodput-{facts.run.id}", label="What the time of the run was used for")


def show_metrics(breakdown: Breakdown) -> None:
    width, largest = METRIC_WIDTH_PIXELS, largest_loss(breakdown)
    with st.container(horizontal=True):
        st.metric("Goodput", formatting.percent(breakdown.goodput), help=GOODPUT_HELP, width=width)
        st.metric("Trained", formatting.duration(breakdown.seconds[TimeCause.TRAINING]), width=width)
        st.metric("Not training", formatting.duration(lost_seconds(breakdown)), help=LOST_HELP, width=width)
        if largest is not None:
            st.metric("Biggest time sink", NAMES[largest], width=width)
