"""The figure of one run."""

from datetime import tzinfo

import plotly.graph_objects as go  # type: ignore[import-untyped]

from dashboard import clock
from dashboard.data import cached
from dashboard.data.facts import RunFacts
from dashboard.data.store import database_url
from dashboard.figures.axis import Along, Rulers
from dashboard.figures.component import Packed
from dashboard.figures.curves import Look, run_figure
from dashboard.figures.marks import Marks
from dashboard.views.cached_figure import cached_figure


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
    options = (metrics, along, window, discarded, smooth, zone)
    key = ("run", database_url(), facts.run.id, facts.stamp, facts.marks_stamp, *options)
    return cached_figure(key, lambda: _figure(facts, *options))


def _figure(
    facts: RunFacts,
    metrics: tuple[str, ...],
    x_axis: XAxis,
    window: tuple[int, int] | None,
    discarded: bool,
    smooth: int,
    zone: str,
) -> go.Figure:
    read = cached.curves(facts, metrics, along=along, window=window, discarded=discarded)
    marks = Marks(
        incidents=facts.incidents,
        interventions=facts.interventions,
        orders=facts.orders,
        events=facts.events,
        last_step=facts.progress.done - 1,
    )
    rulers = in_local_time(read.rulers, along, clock.zone(zone))
    bounds = None if window is None else tuple(rulers.live.at(window))
    look = Look(along=along, window=bounds, smooth=smooth, revision=facts.run.id)
    return run_figure(read.by_metric, marks, rulers, look)


def in_local_time(rulers: Rulers, along: Along, zone: tzinfo) -> Rulers:
    """Positions along the time axis, in the viewer's time zone; those along any other axis stay as they are."""
    if along is not Along.TIME:
        return rulers
    return rulers.moved(lambda milliseconds: clock.on_the_wall(milliseconds, zone))
