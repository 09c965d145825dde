"""The figure of several runs, packed once for all viewers who look at them in the same way."""

import math
from collections.abc import Sequence

import streamlit as st

from dashboard.data import cached
from dashboard.data.held_out import DIFFERENCE, LOSS
from dashboard.data.store import database_url
from dashboard.figures import component
from dashboard.figures.axis import Along
from dashboard.figures.component import Packed
from dashboard.figures.curves import Look
from dashboard.views.compare.entries import Entry
from dashboard.views.compare.overlay import Overlaid, overlay_figure

SEVERAL, POINTS_OF_SEVERAL = 3, 400
"""More lines than this are drawn in fewer buckets, so that they come as soon; envelopes hide nothing all the same."""


def draw(
    entries: Sequence[Entry],
    metrics: tuple[str, ...],
    *,
    along: Along,
    view: tuple[int, int] | None,
    smooth: int,
    baseline: int,
) -> Packed:
    """`view` is the range of the axis in view, None for all of it; `baseline` the place of an entry."""
    stamp = tuple((str(entry.choice), entry.label, entry.known.stamp) for entry in entries)
    return _draw(database_url(), stamp, metrics, along, view, smooth, baseline, entries)


@st.cache_resource(show_spinner=False, max_entries=128)
def _draw(
    url: str,
    stamp: tuple[object, ...],  # as the url part of the key only: new steps make a new entry
    metrics: tuple[str, ...],
    along: Along,
    view: tuple[int, int] | None,
    smooth: int,
    baseline: int,
    _entries: Sequence[Entry],
) -> Packed:
    read = tuple(dict.fromkeys(LOSS if name == DIFFERENCE else name for name in metrics))
    points = cached.POINTS if len(_entries) <= SEVERAL else POINTS_OF_SEVERAL
    lines = [_overlaid(entry, read, along, view, points) for entry in _entries]
    look = Look(along=along, window=view, smooth=smooth, revision="compare")
    return component.pack(overlay_figure(lines, metrics, baseline=baseline, look=look))


def _overlaid(
    entry: Entry, metrics: tuple[str, ...], along: Along, view: tuple[int, int] | None, points: int
) -> Overlaid:
    """What is in view of it, at the resolution that this allows."""
    segment, window = entry.choice.segment, None
    if view is not None:
        ruler = cached.track(entry.known, segment, (), along=along).ruler
        window = (math.floor(ruler.step_at(view[0])), math.ceil(ruler.step_at(view[1])))
    track = cached.track(entry.known, segment, metrics, along=along, window=window, points=points)
    return Overlaid(entry.style, track.by_metric, track.ruler)
