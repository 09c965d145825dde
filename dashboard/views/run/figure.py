"""A run's figure, packed once for all viewers who look at it in the same way."""

from datetime import tzinfo

import streamlit as st

from dashboard import clock
from dashboard.data import cached
from dashboard.data.facts import RunFacts
from dashboard.data.store import database_url
from dashboard.figures import component
from dashboard.figures.axis import Along, Rulers
from dashboard.figures.component import Packed
from dashboard.figures.curves import Look, run_figure
from dashboard.figures.marks import Marks


def draw(
    known: RunFacts,
    metrics: tuple[str, ...],
    *,
    along: Along,
    window: tuple[int, int] | None,
    discarded: bool,
    smooth: int,
    zone: str,
) -> Packed:
    """`window` is the first and the last step in view, None for the whole run; `zone` names a viewer's time zone."""
    stamp = (*known.stamp, *known.marks_stamp)
    return _draw(database_url(), known.run.id, stamp, metrics, along, window, discarded, smooth, zone, known)


@st.cache_resource(show_spinner=False, max_entries=128)
def _draw(
    url: str,
    run_id: str,
    stamp: tuple[float, ...],  # as the url part of the key only: what is new makes a new entry
    metrics: tuple[str, ...],
    along: Along,
    window: tuple[int, int] | None,
    discarded: bool,
    smooth: int,
    zone: str,
    _known: RunFacts,
) -> Packed:
    read = cached.curves(_known, metrics, along=along, window=window, discarded=discarded)
    marks = Marks(
        incidents=_known.incidents,
        interventions=_known.interventions,
        orders=_known.orders,
        events=_known.events,
        last_step=_known.progress.done - 1,
    )
    rulers = seen_rulers(read.rulers, along, clock.zone(zone))
    bounds = None if window is None else tuple(rulers.live.at(window))
    look = Look(along=along, window=bounds, smooth=smooth, revision=run_id)
    return component.pack(run_figure(read.by_metric, marks, rulers, look))


def seen_rulers(rulers: Rulers, along: Along, where: tzinfo) -> Rulers:
    """As a viewer there sees them."""
    if along is not Along.TIME:
        return rulers
    return rulers.moved(lambda milliseconds: clock.on_the_wall(milliseconds, where))
