"""The band in which a signal was expected: a ribbon with its middle as a dashed line. Pure."""

from typing import Any

import numpy as np

from dashboard.axes import Floats, compact
from dashboard.figures.panels import Panel
from dashboard.figures.style import GREY, NUMBER, with_alpha
from monitor.detection.expected_bands import Band

MAX_POINTS = 400
"""Points of each line; a longer band is thinned."""


def expected_band(panel: Panel, x: Floats, band: Band) -> list[dict[str, Any]]:
    """Return the expected band at these positions; a gap during the warm-up."""
    warm = np.flatnonzero(np.isfinite(band.low) & np.isfinite(band.high))
    drawn = warm[:: -max(1, -(-len(warm) // MAX_POINTS))][::-1]  # with the newest one
    if not len(drawn):
        return []
    low, high = band.low[drawn], band.high[drawn]
    base = {"type": "scatter", "x": compact(x[drawn]), "yaxis": panel.value_axis, "mode": "lines"}
    edge = base | {"line": {"color": with_alpha(GREY, 0.5), "width": 0.5}, "hoverinfo": "skip"}
    edge |= {"name": "expected band", "legendgroup": "expected band"}
    limits = f"%{{customdata[0]:{NUMBER}}} .. %{{customdata[1]:{NUMBER}}}"
    middle = base | {
        "y": band.expected[drawn],
        "name": "expected",
        "legendgroup": "expected",
        "line": {"color": GREY, "width": 1.2, "dash": "dash"},
        "customdata": np.stack([low, high], axis=1),
        "hovertemplate": f"expected %{{y:{NUMBER}}} (band {limits})<extra></extra>",
    }
    ribbon = {"fill": "tonexty", "fillcolor": with_alpha(GREY, 0.25)}
    return [edge | {"y": low, "showlegend": False}, edge | {"y": high} | ribbon, middle]
