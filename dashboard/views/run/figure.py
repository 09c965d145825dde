"""The figure of one run."""

from datetime import tzinfo

import plotly.graph_objects as go  # type: ignore[import-untyped]

from dashboard import clock
from dashboard.axes import AxisChoices, RunAxes, XAxis
from dashboard.data import cached
from dashboard.data.facts import RunFacts
from dashboard.data.store import database_url
from dashboard.figures.component import PackedFigure
from dashboard.figures.curves import ChartOptions, run_figure
from dashboard.figures.marks import Marks
from dashboard.views.cached_figure import cached_figure
from lossguard.vocabulary.gating import SKIPPED


def draw(
    facts: RunFacts,
    metrics: tuple[str, ...],
    *,
    x_axis: XAxis,
    window: tuple[int, int] | None,
    discarded: bool,
    smooth: int,
    zone: str,
    axes: AxisChoices,
) -> PackedFigure:
    """`window` is the first and the last step in view, None for the whole run; `zone` names a viewer's time zone."""
    options = (metrics, x_axis, window, discarded, smooth, zone, axes)
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
    axes: AxisChoices,
) -> go.Figure:
    also = (SKIPPED,) if SKIPPED in facts.metrics and SKIPPED not in metrics else ()
    read = cached.curves(facts, (*metrics, *also), x_axis=x_axis, window=window, discarded=discarded)
    marks = Marks(
        incidents=facts.incidents,
        interventions=facts.interventions,
        orders=facts.orders,
        events=facts.events,
        last_step=facts.progress.done - 1,
        run_id=facts.run.id,
        skipped=read.by_metric.get(SKIPPED),
        notes=facts.notes,
    )
    run_axes = in_local_time(read.run_axes, x_axis, clock.zone(zone))
    bounds = None if window is None else tuple(run_axes.live.at(window))
    band = cached.live_band(facts, window) if "loss" in metrics else None
    chart = ChartOptions(x_axis=x_axis, window=bounds, smooth=smooth, revision=facts.run.id, axes=axes, band=band)
    return run_figure({name: read.by_metric[name] for name in metrics}, marks, run_axes, chart)


def in_local_time(run_axes: RunAxes, x_axis: XAxis, zone: tzinfo) -> RunAxes:
    """Moves positions on the time axis to the viewer's time zone, and leaves those on other axes alone."""
    if x_axis is not XAxis.TIME:
        return run_axes
    return run_axes.mapped(lambda milliseconds: clock.on_clock(milliseconds, zone))
