"""Figures that are made and packed once, for all viewers who look at the same data in the same way."""

from collections.abc import Callable, Hashable

import plotly.graph_objects as go  # type: ignore[import-untyped]
import streamlit as st

from dashboard.figures import component
from dashboard.figures.component import PackedFigure


@st.cache_resource(show_spinner=False, max_entries=320)
def cached_figure(key: tuple[Hashable, ...], _make: Callable[[], go.Figure]) -> PackedFigure:
    """The packed figure of `key`, which holds everything that the figure depends on. `_make` is called if it is new."""
    return component.pack(_make())
