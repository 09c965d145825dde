"""The layout of a run's figure: one panel per metric over one x axis, and a row above them for names of incidents.

Every panel has a second, invisible y axis 0..1 for marks: they keep their height whatever the values are.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from dashboard import formatting
from dashboard.axes import Floats, XAxis
from dashboard.figures.style import GREY, base_figure, metric_axis, number_format, scatter, with_alpha
from dashboard.figures.value_axis import ALWAYS_LOG, CONSTANT, LARGEST, SMALLEST, Range, axis_range, packed
from lossguard.vocabulary.metrics import title

FIRST_PANEL_HEIGHT, PANEL_HEIGHT, GAP, LABEL_ROW = 320, 130, 42, 18
"""Heights in pixels; the gap holds the title of the next panel, the label row the names of the incidents."""
TOP, BOTTOM = 40, 46
"""Margins in pixels: the legend above, the title of the x axis below."""

NOTHING, NOTHING_ABOVE_0 = "no finite values", "log scale, no values above 0"
"""Notes in the title of a panel that shows no value."""


def _x_axis_of(title: str, hover: str, **more: Any) -> dict[str, Any]:
    return {"title": {"text": title, "standoff": 8}, "unifiedhovertitle": {"text": hover}, **more}


X_AXES: dict[XAxis, dict[str, Any]] = {
    XAxis.STEP: _x_axis_of("Step", "step %{x:,d}", tickformat=",d"),
    XAxis.TOKENS: _x_axis_of("Tokens", "%{x:.4s} tokens", tickformat="~s"),
    XAxis.TIME: _x_axis_of("Time", "%{x|%Y-%m-%d %H:%M:%S}", type="date"),
    XAxis.FLOPS: _x_axis_of("Floating-point operations (6ND)", "%{x:.3e} FLOPs", exponentformat="power"),
}
MAX_NARROW = 8
"""Fewer steps in view have a tick each: plotly would write the same step at two ticks."""
SPIKES = {"showspikes": True, "spikemode": "across", "spikethickness": 1, "spikedash": "dot", "spikecolor": GREY}
"""Properties of an x axis that draw a line through all panels at the pointer."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One metric's part of the figure; `bottom` and `top` are shares of the drawing's height."""

    metric: str
    position: int
    bottom: float
    top: float
    log: bool = False
    range: Range | None = None
    """Range of the axis of the values; None if it shows all of them."""

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest value that the axis shows."""
        if self.range is None:
            return (0.0 if self.log else -np.inf), np.inf
        low, high = self.range
        return (10.0**low, 10.0**high) if self.log else (low, high)

    @property
    def value_axis(self) -> str:
        """Name of the y axis of the values, as traces write it."""
        return "y" if self.position == 0 else f"y{self.position + 1}"

    @property
    def mark_axis(self) -> str:
        """Name of the y axis 0..1."""
        return f"y{self.position + 101}"


@dataclass(frozen=True, slots=True)
class PanelLayout:
    """Panels from the top down, and the label row above them."""

    height: int
    """Height of the whole figure in pixels."""
    top: int
    """Upper margin in pixels."""
    panels: list[Panel]
    label_row: Panel


def panel_layout(
    metrics: list[str],
    *,
    log: Container[str] = ALWAYS_LOG,
    ranges: Mapping[str, Range] = MappingProxyType({}),
    label_row: int = LABEL_ROW,
    top: int = TOP,
) -> PanelLayout:
    """`ranges`: of the axes that do not show all values, by metric.

    `label_row` and `top` in pixels: a figure without incidents and without a legend needs neither.
    """
    heights = [FIRST_PANEL_HEIGHT] + [PANEL_HEIGHT] * (len(metrics) - 1)
    inside = sum(heights) + GAP * len(heights) + label_row
    panels, upper = [], float(inside - label_row - GAP)
    for position, (metric, height) in enumerate(zip(metrics, heights, strict=False)):
        bottom = max(0.0, (upper - height) / inside)
        panels.append(Panel(metric, position, bottom, upper / inside, metric in log, ranges.get(metric)))
        upper -= height + GAP
    return PanelLayout(inside + top + BOTTOM, top, panels, Panel("", 100, (inside - label_row) / inside, 1.0))


def panel_figure(
    layout: PanelLayout,
    traces: list[dict[str, Any]],
    x_axis: XAxis,
    window: tuple[float, float] | None,
    revision: str,
    **more: Any,
) -> go.Figure:
    """The figure of these traces; `window` is the range in view in units of the x axis, `more` is added to the layout.

    `traces` hold values of panels as they are. A panel says what it cannot show of them, and one without any value that
    its axis can show has no ticks: plotly would invent some.
    """
    revision = f"{revision} {x_axis}"
    values = {panel.metric: _values(panel, traces) for panel in layout.panels}
    notes = {panel.metric: _note(panel, values[panel.metric]) for panel in layout.panels}
    axes: dict[str, Any] = {"xaxis": _x_axis(layout, x_axis, window) | _ends(traces)}
    if layout.label_row.bottom < layout.label_row.top:
        axes[_axis_key(layout.label_row.mark_axis)] = _mark_axis(layout.label_row)
    for panel in layout.panels:
        axes[_axis_key(panel.value_axis)] = _value_axis(panel, values[panel.metric], notes[panel.metric], revision)
        axes[_axis_key(panel.mark_axis)] = _mark_axis(panel) | {"overlaying": panel.value_axis}
    panels = [[panel.metric, panel.value_axis] for panel in layout.panels]
    meta = {"panels": panels, "x_axis": str(x_axis)}  # for chart_view.js
    hover = {"hovermode": "x unified", "hoversubplots": "axis", "hoverdistance": 30}
    titles = [_title(panel, notes[panel.metric]) for panel in layout.panels]
    figure = base_figure(
        height=layout.height,
        top=layout.top,
        bottom=BOTTOM,
        revision=revision,
        **hover | {"annotations": titles, "meta": meta} | axes | more,
    )
    figure.add_traces([_packed(trace, layout) for trace in [*traces, *_placeholders(layout, traces)]])
    return figure


def _x_axis(layout: PanelLayout, x_axis: XAxis, window: tuple[float, float] | None) -> dict[str, Any]:
    return {
        "anchor": layout.panels[-1].value_axis if layout.panels else "y",
        "range": window,
        "showgrid": True,
        "zeroline": False,
        **SPIKES,
        **X_AXES[x_axis],
        **({"dtick": 1} if x_axis is XAxis.STEP and window is not None and window[1] - window[0] < MAX_NARROW else {}),
    }


def _ends(traces: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the ends of the x axis if all is shown: plotly would make room for half a marker, up to 6% at each end.

    Not where lines have markers at their points: the first and the last one need that room.
    """
    if not any(trace.get("mode") == "lines" for trace in traces):
        return {}
    x = np.concatenate([np.asarray(trace["x"], dtype=np.float64) for trace in traces])
    first, last = float(np.nanmin(x)), float(np.nanmax(x))
    return {"autorangeoptions": {"clipmin": first, "clipmax": last}} if first < last else {}


def _value_axis(panel: Panel, values: Floats, note: str, revision: str) -> dict[str, Any]:
    shown = values[(values >= panel.bounds[0]) & (values <= panel.bounds[1])]
    # Beyond 3 ticks, plotly labels every digit beside a log axis of one power of ten.
    axis = metric_axis(panel.metric, log=panel.log, largest=np.abs(shown).max(initial=0.0)) | {
        "domain": [panel.bottom, panel.top],
        "nticks": 3 if panel.log else 6 if panel.position == 0 else 4,
        "showticklabels": note not in (NOTHING, NOTHING_ABOVE_0),
        "uirevision": f"{revision} {panel.log}",  # a zoom along y means nothing on the other kind of axis
    }
    halves = shown / 2  # their difference does not overflow
    is_constant = len(shown) > 0 and np.ptp(halves) <= CONSTANT * np.abs(halves).max()
    value = float(shown[0]) if is_constant and SMALLEST < abs(shown[0]) <= LARGEST / 2 else 0.0
    bounds = panel.range
    if bounds is None and not panel.log and value:
        bounds = axis_range(np.array([value]), np.array([value]), log=False)
    if bounds is not None:  # also after a double click, which lets plotly find a range
        ends = [10.0**end for end in bounds] if panel.log else list(bounds)
        # Not minallowed and maxallowed: plotly ignores those below 1 on a log axis.
        options = {"clipmin": ends[0], "clipmax": ends[1], "include": ends}
        axis |= {"range": bounds, "autorange": True, "autorangeoptions": options}
    if value:  # between 0 and its double on a linear axis: plotly would label round numbers beside it
        ticks = [value] if panel.log else [0.0, value, 2 * value]
        axis |= {"tickvals": ticks, "tickformat": number_format(panel.metric, abs(value)), "tickformatstops": []}
    return axis


def _packed(trace: dict[str, Any], layout: PanelLayout) -> dict[str, Any]:
    panel = next((panel for panel in layout.panels if trace["yaxis"] == panel.value_axis), None)
    if panel is None:
        return trace
    return packed(trace, None if panel.range is None else panel.bounds, log=panel.log)


def _placeholders(layout: PanelLayout, traces: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A trace without a point for each panel that has none: plotly draws no axes without a trace."""
    used = {trace["yaxis"] for trace in traces}
    return [
        scatter(panel.value_axis, [None], [None], NOTHING, legendgroup="", showlegend=False, hoverinfo="skip")
        for panel in layout.panels
        if used.isdisjoint((panel.value_axis, panel.mark_axis))
    ]


def _values(panel: Panel, traces: Sequence[Mapping[str, Any]]) -> Floats:
    """Return all finite values of a panel."""
    own = [np.asarray(trace["y"], dtype=np.float64) for trace in traces if trace["yaxis"] == panel.value_axis]
    values: Floats = np.concatenate([np.empty(0), *own])
    return values[np.isfinite(values)]


def _note(panel: Panel, values: Floats) -> str:
    """Return the note that a viewer needs about the axis of a panel with these values."""
    visible = values > 0 if panel.log else np.ones(len(values), dtype=np.bool_)
    if not visible.any():
        return NOTHING_ABOVE_0 if len(values) else NOTHING
    shown = values[(values >= panel.bounds[0]) & (values <= panel.bounds[1])]
    sizes = np.abs(shown[shown != 0])
    notes = [
        (panel.log, "log scale"),
        (not visible.all(), "which has no place for values of 0 and below"),
        ((sizes > LARGEST).any(), f"larger values are drawn at {LARGEST:g}"),
        ((sizes < SMALLEST).any(), f"smaller values are drawn at {SMALLEST:g}"),
    ]
    return ", ".join(note for applies, note in notes if applies)


def vertical_band(first: float, last: float, color: str) -> dict[str, Any]:
    """A shape over all panels, below the curves."""
    return {
        "type": "rect",
        "x0": first,
        "x1": last,
        "y0": 0,
        "y1": 1,
        "yref": "paper",
        "layer": "below",
        "fillcolor": with_alpha(color, 0.16),
        "line": {"color": with_alpha(color, 0.5), "width": 0.5},
    }


def vertical_line(at: float, line: dict[str, Any]) -> dict[str, Any]:
    """A shape over all panels."""
    return {"type": "line", "x0": at, "x1": at, "y0": 0, "y1": 1, "yref": "paper", "line": line}


def _title(panel: Panel, note: str) -> dict[str, Any]:
    return {
        "name": panel.metric,
        "captureevents": True,  # a click collapses the panel
        "text": f"<b>{formatting.escape_plotly(title(panel.metric))}</b>{note and f' - {note}'}",
        "x": 0,
        "xref": "paper",
        "xanchor": "left",
        "y": panel.top,
        "yref": "paper",
        "yanchor": "bottom",
        "yshift": 4,
        "showarrow": False,
    }


def _mark_axis(panel: Panel) -> dict[str, Any]:
    return {"domain": [panel.bottom, panel.top], "range": [0, 1], "visible": False, "fixedrange": True}


def _axis_key(axis: str) -> str:
    return "yaxis" + axis.removeprefix("y")
