"""The losses of each source and the grad norms of each layer group, where a run reports them."""

import streamlit as st

from dashboard.data import cached
from dashboard.data.facts import RunFacts
from dashboard.figures import component
from dashboard.figures.families import family_figure
from lossguard.vocabulary.metrics import family_of

MAX_SERIES = 32


def show(facts: RunFacts) -> None:
    """Show the figure of the families; nothing for a run without them."""
    names = tuple(name for name in facts.metrics if family_of(name) is not None)[:MAX_SERIES]
    if not names:
        return
    curves = cached.curves(facts, names, discarded=False)
    figure = family_figure(curves.by_metric, revision=f"families-{facts.run.id}")
    if figure is not None:
        st.subheader("Sources and layers", anchor=False)
        component.show(figure, key=f"families-{facts.run.id}", label="Losses of sources and grad norms of layers")
