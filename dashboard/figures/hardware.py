"""The hardware of a run over time: one panel for each value, one line for each device. Pure."""

from collections.abc import Sequence
from datetime import tzinfo

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from dashboard import clock
from dashboard.axes import XAxis
from dashboard.figures.line_panels import LinePanel, PanelLine, line_panels
from dashboard.figures.panels import X_AXES
from db.records.hardware import HardwareSample
from lossguard.vocabulary.hardware import MACHINE, VALUES

PANEL_HEIGHT = 76
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
        if value.is_error:
            continue
        lines = [
            PanelLine(names[key], _times(of_device, where), _column(of_device, value.name))
            for key, of_device in sorted(drawn.items(), key=lambda item: (item[0][1] == MACHINE, item[0]))
            if any(value.name in sample.readings for sample in of_device)
        ]
        if lines:
            panels.append(LinePanel(value.title, lines, value.tick_format, from_zero=value.name != "temperature"))
    if not panels:
        return None
    errors = _times([sample for sample in samples if sample.num_errors], where)
    return line_panels(panels, X_AXES[XAxis.TIME], revision=revision, panel_height=PANEL_HEIGHT, marks=errors.tolist())


def thinned(samples: Sequence[HardwareSample], most: int = MAX_POINTS) -> list[HardwareSample]:
    """About `most` of the samples of one device, evenly spaced, the last one and those with an error among them."""
    stride = -(-len(samples) // most)
    last = len(samples) - 1
    return [each for place, each in enumerate(samples) if (last - place) % stride == 0 or each.num_errors]


def _times(samples: Sequence[HardwareSample], where: tzinfo) -> np.ndarray:
    """Milliseconds on the viewer's clock."""
    return clock.on_clock(np.array([sample.time * 1000 for sample in samples], dtype=np.float64), where)


def _column(samples: Sequence[HardwareSample], name: str) -> np.ndarray:
    return np.array([sample.readings.get(name, np.nan) for sample in samples], dtype=np.float64)
