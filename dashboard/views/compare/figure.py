"""The figure of several runs, packed once for all viewers who look at them in the same way."""

import math
from collections.abc import Sequence

import streamlit as st

from dashboard.data import cached
from dashboard.data.held_out import HELD_OUT_DIFFERENCE, HELD_OUT_LOSS
from dashboard.data.store import database_url
from dashboard.figures import component
from dashboard.figures.axis import XAxis
from dashboard.figures.component import PackedFigure
from dashboard.figures.curves import ChartOptions
from dashboard.views.compare.entries import Entry
from dashboard.views.compare.overlay import Overlaid, overlay_figure

SEVERAL, POINTS_OF_SEVERAL = 3, 400
"""More lines than this are drawn in fewer buckets, so that they come as soon; envelopes hide nothing all the same."""


def draw(
    entries: Sequence[Entry],
    metrics: tuple[str, ...],
    *,
    x_axis: XAxis,
    view: tuple[int, int] | None,
    smooth: int,
    baseline: int,
) -> PackedFigure:
    """`view` is the range of the axis in view, None for all of it; `baseline` the place of an entry."""
    stamp = tuple((str(entry.choice), entry.label, entry.facts.stamp) for entry in entries)
    return _draw(database_url(), stamp, metrics, x_axis, view, smooth, baseline, entries)


@st.cache_resource(show_spinner=False, max_entries=128)
def _draw(
    url: str,
    stamp: tuple[object, ...],  # as the url part of the key only: new steps make a new entry
    metrics: tuple[str, ...],
    x_axis: XAxis,
    view: tuple[int, int] | None,
    smooth: int,
    baseline: int,
    _entries: Sequence[Entry],
) -> PackedFigure:
    read = tuple(dict.fromkeys(HELD_OUT_LOSS if name == HELD_OUT_DIFFERENCE else name for name in metrics))
    points = cached.MAX_POINTS if len(_entries) <= SEVERAL else POINTS_OF_SEVERAL
    lines = [_overlaid(entry, read, x_axis, view, points) for entry in _entries]
    options = ChartOptions(x_axis=x_axis, window=view, smooth=smooth, revision="compare")
    return component.pack(overlay_figure(lines, metrics, baseline=baseline, options=options))


def _overlaid(
    entry: Entry, metrics: tuple[str, ...], x_axis: XAxis, view: tuple[int, int] | None, points: int
) -> Overlaid:
    """What is in view of it, at the resolution that this allows."""
    segment, window = entry.choice.segment, None
    if view is not None:
        step_axis = cached.line_curves(entry.facts, segment, (), x_axis=x_axis).step_axis
        window = (math.floor(step_axis.step_at(view[0])), math.ceil(step_axis.step_at(view[1])))
    track = cached.line_curves(entry.facts, segment, metrics, x_axis=x_axis, window=window, points=points)
    return Overlaid(entry.style, track.by_metric, track.step_axis)
