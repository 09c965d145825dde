"""The figure of several runs, packed once for all viewers who look at them in the same way."""

import math
from collections.abc import Sequence

import streamlit as st

from dashboard import data, figure
from dashboard.charts import Look
from dashboard.entries import Entry
from dashboard.figure import Packed
from dashboard.held_out import DIFFERENCE, LOSS
from dashboard.overlay import Overlaid, overlay_figure
from dashboard.rulers import Along
from dashboard.store import database_url


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
    lines = [_overlaid(entry, read, along, view) for entry in _entries]
    look = Look(along=along, window=view, smooth=smooth, revision="compare")
    return figure.pack(overlay_figure(lines, metrics, baseline=baseline, look=look))


def _overlaid(entry: Entry, metrics: tuple[str, ...], along: Along, view: tuple[int, int] | None) -> Overlaid:
    """What is in view of it, at the resolution that this allows."""
    segment, window = entry.choice.segment, None
    if view is not None:
        ruler = data.track(entry.known, segment, (), along=along).ruler
        window = (math.floor(ruler.step_at(view[0])), math.ceil(ruler.step_at(view[1])))
    track = data.track(entry.known, segment, metrics, along=along, window=window)
    return Overlaid(entry.style, track.by_metric, track.ruler)
