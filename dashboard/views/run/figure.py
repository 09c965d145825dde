"""A run's figure, packed once for all viewers who look at it in the same way."""

from datetime import tzinfo

import streamlit as st

from dashboard import clock
from dashboard.data import cached
from dashboard.data.facts import RunFacts
from dashboard.data.store import database_url
from dashboard.figures import component
from dashboard.figures.axis import RunAxes, XAxis
from dashboard.figures.component import PackedFigure
from dashboard.figures.curves import ChartOptions, run_figure
from dashboard.figures.marks import Marks


def draw(
    facts: RunFacts,
    metrics: tuple[str, ...],
    *,
    x_axis: XAxis,
    window: tuple[int, int] | None,
    discarded: bool,
    smooth: int,
    zone: str,
) -> PackedFigure:
    """`window` is the first and the last step in view, None for the whole run; `zone` names a viewer's time zone."""
    stamp = (*facts.stamp, *facts.marks_stamp)
    return _draw(database_url(), facts.run.id, stamp, metrics, x_axis, window, discarded, smooth, zone, facts)


@st.cache_resource(show_spinner=False, max_entries=128)
def _draw(
    url: str,
    run_id: str,
    stamp: tuple[float, ...],  # as the url part of the key only: what is new makes a new entry
    metrics: tuple[str, ...],
    x_axis: XAxis,
    window: tuple[int, int] | None,
    discarded: bool,
    smooth: int,
    zone: str,
    _facts: RunFacts,
) -> PackedFigure:
    read = cached.curves(_facts, metrics, x_axis=x_axis, window=window, discarded=discarded)
    marks = Marks(
        incidents=_facts.incidents,
        interventions=_facts.interventions,
        orders=_facts.orders,
        events=_facts.events,
        last_step=_facts.progress.done - 1,
    )
    run_axes = axes_on_clock(read.run_axes, x_axis, clock.zone(zone))
    bounds = None if window is None else tuple(run_axes.live.at(window))
    options = ChartOptions(x_axis=x_axis, window=bounds, smooth=smooth, revision=run_id)
    return component.pack(run_figure(read.by_metric, marks, run_axes, options))


def axes_on_clock(run_axes: RunAxes, x_axis: XAxis, where: tzinfo) -> RunAxes:
    """As a viewer there sees them."""
    if x_axis is not XAxis.TIME:
        return run_axes
    return run_axes.mapped(lambda milliseconds: clock.on_clock(milliseconds, where))
