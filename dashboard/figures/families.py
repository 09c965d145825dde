"""Metrics of several series: one panel for each family, one line for each series. Pure."""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from dashboard.axes import XAxis
from dashboard.data.facts import Curve
from dashboard.figures.line_panels import LinePanel, PanelLine, line_panels
from dashboard.figures.panels import X_AXES
from lossguard.vocabulary.metrics import FAMILIES, LogAxis, family_of


def family_figure(curves: Mapping[str, Curve], *, revision: str) -> go.Figure | None:
    """The live line of each series over its steps. None where no curve is one of a family."""
    panels = []
    for family in FAMILIES:
        lines = [
            PanelLine(name.removeprefix(family.name), *_points(curve))
            for name, curve in curves.items()
            if family_of(name) is family
        ]
        if lines:
            title = family.title.format("each source" if family.name == "source_loss/" else "each layer group")
            panels.append(LinePanel(title, lines, family.tick_format, log=family.log_axis is LogAxis.ALWAYS))
    return line_panels(panels, X_AXES[XAxis.STEP], revision=revision) if panels else None


def _points(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Steps, and the mean of each bucket; NaN where no value was finite."""
    means = [np.nan if mean is None else mean for mean in curve.live.mean]
    return np.array(curve.live.first_step, dtype=np.float64), np.array(means, dtype=np.float64)
