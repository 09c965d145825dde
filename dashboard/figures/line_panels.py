"""Figures of panels below each other over one x axis, each with several lines: no bands, no branches. Pure.

Metrics of several series have one panel for each family, the hardware of a run one for each value.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from dashboard import formatting
from dashboard.axes import Floats, XAxis, compact
from dashboard.data.facts import Curve
from dashboard.figures.lines import floats
from dashboard.figures.panels import SPIKES, X_AXES, vertical_line
from dashboard.figures.style import NUMBER, RUN_COLOURS, VERMILLION, base_figure, scatter
from dashboard.figures.value_axis import as_float32
from db.records.hardware import HardwareSample
from lossguard.vocabulary.hardware import MACHINE, VALUES
from lossguard.vocabulary.metrics import FAMILIES, LogAxis, family_of

GAP, TOP, BOTTOM = 34, 40, 46
"""Pixels; the gap holds the title of the next panel, the upper margin the legend."""


MARK = {"color": VERMILLION, "width": 1.2, "dash": "dot"}
"""Look of a line through all panels."""


@dataclass(frozen=True, slots=True)
class PanelLine:
    """A line of float64[N] positions and values; a NaN is a gap."""

    name: str
    x: Floats
    y: Floats


@dataclass(frozen=True, slots=True)
class LinePanel:
    title: str
    lines: Sequence[PanelLine]
    tick_format: str = "~g"
    log: bool = False
    from_zero: bool = False
    """True if its axis begins at 0."""


def line_panels(
    panels: Sequence[LinePanel],
    x_axis: dict[str, Any],
    *,
    revision: str,
    panel_height: int = 130,
    marks: Sequence[float] = (),
) -> go.Figure:
    """`x_axis`: as plotly's layout has it; `panel_height` in pixels; `marks`: positions of lines through all panels."""
    names = list(dict.fromkeys(line.name for panel in panels for line in panel.lines))
    colours = {name: RUN_COLOURS[place % len(RUN_COLOURS)] for place, name in enumerate(names)}
    inside = len(panels) * (panel_height + GAP)
    layout: dict[str, Any] = {
        "annotations": [],
        "shapes": [vertical_line(x, MARK) for x in marks],
        "hovermode": "x unified",
    }
    traces: list[dict[str, Any]] = []
    shown: set[str] = set()
    for place, panel in enumerate(panels):
        suffix = "" if place == 0 else str(place + 1)
        top = 1 - (place * (panel_height + GAP) + GAP) / inside
        bottom = max(top - panel_height / inside, 0.0)
        axis = {"tickformat": panel.tick_format, "zeroline": False, "showgrid": True, "nticks": 4}
        if panel.log:
            axis |= {"type": "log", "dtick": "D2"}
        elif panel.from_zero:
            axis["rangemode"] = "tozero"
        layout[f"yaxis{suffix}"] = axis | {"domain": [bottom, top], "anchor": "x"}
        layout["annotations"].append(
            {
                "text": f"<b>{formatting.escape_plotly(panel.title)}</b>",
                "showarrow": False,
                "font": {"size": 13},
                **{"x": 0, "xref": "paper", "xanchor": "left", "y": top, "yref": "paper", "yanchor": "bottom"},
            }
        )
        for line in panel.lines:
            traces.append(_trace(line, f"y{suffix}", colours[line.name], with_legend=line.name not in shown))
            shown.add(line.name)
    layout["xaxis"] = {"anchor": f"y{len(panels)}" if len(panels) > 1 else "y", "zeroline": False, **SPIKES, **x_axis}
    figure = base_figure(height=inside + TOP + BOTTOM, top=TOP, bottom=BOTTOM, revision=revision, **layout)
    figure.add_traces(traces)
    return figure


def _trace(line: PanelLine, axis: str, colour: str, *, with_legend: bool) -> dict[str, Any]:
    name = formatting.escape_plotly(line.name)
    return scatter(
        axis,
        compact(line.x),
        as_float32(line.y),
        name,
        mode="lines" if len(line.x) > 60 else "lines+markers",
        hover=f"{name} %{{y:{NUMBER}}}",
        showlegend=with_legend,
        line={"color": colour, "width": 1.5},
        marker={"size": 4},
    )


def family_figure(curves: Mapping[str, Curve], *, revision: str) -> go.Figure | None:
    """The live line of each series over its steps. None where no curve is one of a family."""
    panels = []
    for family in FAMILIES:
        lines = [
            PanelLine(
                name.removeprefix(family.name),
                np.array(curve.live.first_step, dtype=np.float64),
                floats(curve.live.mean),
            )
            for name, curve in curves.items()
            if family_of(name) is family
        ]
        if lines:
            title = family.title.format("each source" if family.name == "source_loss/" else "each layer group")
            panels.append(LinePanel(title, lines, family.tick_format, log=family.log_axis is LogAxis.ALWAYS))
    return line_panels(panels, X_AXES[XAxis.STEP], revision=revision) if panels else None


HARDWARE_PANEL_HEIGHT = 76
"""Pixels."""
MAX_POINTS = 400
"""Samples of a device that are drawn, evenly spaced; those with an error are drawn all."""


def hardware_figure(samples: Sequence[HardwareSample], where: tzinfo, *, revision: str) -> go.Figure | None:
    """Draw the samples; None if they have no values to draw. `where`: the viewer's time zone."""
    by_device: dict[tuple[str, str], list[HardwareSample]] = {}
    for sample in samples:
        by_device.setdefault((sample.host, sample.device), []).append(sample)
    hosts = {host for host, _ in by_device}
    names = {key: key[1] if len(hosts) == 1 else f"{key[1]} on {key[0]}" for key in by_device}
    drawn = {key: thinned(of_device) for key, of_device in by_device.items()}
    panels = []
    for value in VALUES:
        if value.error:
            continue
        lines = [
            PanelLine(
                names[key],
                _times(of_device, where),
                np.array([each.readings.get(value.name, np.nan) for each in of_device]),
            )
            for key, of_device in sorted(drawn.items(), key=lambda item: (item[0][1] == MACHINE, item[0]))
            if any(value.name in sample.readings for sample in of_device)
        ]
        if lines:
            panels.append(LinePanel(value.title, lines, value.tick_format, from_zero=value.name != "temperature"))
    if not panels:
        return None
    errors = _times([sample for sample in samples if sample.num_errors], where)
    return line_panels(
        panels, X_AXES[XAxis.TIME], revision=revision, panel_height=HARDWARE_PANEL_HEIGHT, marks=errors.tolist()
    )


def thinned(samples: Sequence[HardwareSample], most: int = MAX_POINTS) -> list[HardwareSample]:
    """About `most` of the samples of one device, evenly spaced, the last one and those with an error among them."""
    stride = -(-len(samples) // most)
    last = len(samples) - 1
    return [each for place, each in enumerate(samples) if (last - place) % stride == 0 or each.num_errors]


def _times(samples: Sequence[HardwareSample], where: tzinfo) -> np.ndarray:
    """Milliseconds on the viewer's clock."""
    return formatting.on_clock(np.array([sample.time * 1000 for sample in samples], dtype=np.float64), where)
