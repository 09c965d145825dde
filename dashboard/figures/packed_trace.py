"""A trace with values that plotly.js can draw, in as few bytes as show no difference. Pure."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from dashboard import formatting
from dashboard.axes import Floats
from dashboard.figures.float32 import LARGEST, as_float32, drawable

FAR = 1e6
"""Widths of a linear axis beyond which browsers cannot draw a line to a point."""


def packed(trace: dict[str, Any], shown: tuple[float, float] | None, *, log: bool) -> dict[str, Any]:
    """Pack a trace. `shown`: the smallest and the largest value that its axis shows; None for all values."""
    values = drawable(np.asarray(trace["y"], dtype=np.float64))
    if shown is None or log:
        return trace | {"y": as_float32(values, shown)}
    drawn = _near(values, shown)
    is_moved = np.isfinite(values) & (drawn != values)
    return trace | {"y": as_float32(drawn, shown)} | (_hover_of_values(trace) if is_moved.any() else {})


def _near(values: Floats, shown: tuple[float, float]) -> Floats:
    """Move values far outside the axis nearer to it."""
    far = FAR * (shown[1] - shown[0])
    moved: Floats = np.clip(values, max(shown[0] - far, -LARGEST), min(shown[1] + far, LARGEST))
    return np.where(np.isfinite(values), moved, values)


def _hover_of_values(trace: Mapping[str, Any]) -> dict[str, Any]:
    """Show each value as text: points are not where their values are."""
    template = re.sub(r"%\{y:[^}]*\}", "%{text}", trace.get("hovertemplate") or "")
    return {"hovertemplate": template, "text": [formatting.number(value) for value in trace["y"]]} if template else {}
