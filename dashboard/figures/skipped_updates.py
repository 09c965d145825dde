"""The steps whose update the optimizer skipped, marked below the first curve of a run. Pure."""

from typing import Any

from dashboard import formatting
from dashboard.axes import RunAxes, StepAxis
from dashboard.data.facts import Curve
from dashboard.figures.panels import Panel
from dashboard.figures.style import ORANGE
from db.queries import Series

NAME = "skipped update"
"""Name in the legend."""
HEIGHT = 0.03
"""Height of the marks in their panel, 0..1."""


def num_skipped(series: Series) -> int:
    """Updates that were skipped on this line; what is no number of updates counts for nothing."""
    means = [0.0 if mean is None else mean for mean in series.mean]
    return round(sum(max(mean, 0.0) * count for mean, count in zip(means, series.count, strict=True)))


def skipped_update_marks(panel: Panel, curve: Curve, run_axes: RunAxes) -> list[dict[str, Any]]:
    """Return one trace for the live line, and one for each discarded branch."""
    lines = [(curve.live, run_axes.live)]
    lines += [(series, run_axes.branches.get(segment, run_axes.live)) for segment, series in curve.discarded.items()]
    return [trace for series, step_axis in lines for trace in _marks(panel, series, step_axis)]


def _marks(panel: Panel, series: Series, step_axis: StepAxis) -> list[dict[str, Any]]:
    at = [place for place, most in enumerate(series.max) if most is not None and most > 0]
    if not at:
        return []
    trace = {
        "type": "scatter",
        "x": step_axis.at([series.first_step[place] for place in at]).tolist(),
        "y": [HEIGHT] * len(at),
        "yaxis": panel.mark_axis,
        "name": NAME,
        "legendgroup": NAME,
        "mode": "markers",
        "cliponaxis": False,
        "marker": {"symbol": "triangle-up-open", "size": 9, "color": ORANGE, "line": {"width": 1.8}},
        "customdata": [_hover(series, place) for place in at],
        "hovertemplate": "%{customdata}<extra></extra>",
    }
    return [trace]


def _hover(series: Series, place: int) -> str:
    first, last = series.first_step[place], series.last_step[place]
    count = round((series.mean[place] or 0.0) * series.count[place])
    where = f"step {formatting.count(first)}" if first == last else f"steps {formatting.count(first)} to {last:,}"
    return f"{formatting.plural(count, 'update', 'updates')} skipped at {where}"
