"""The legend of a picture, as HTML that wraps on a narrow page. Pure."""

import html
from collections.abc import Sequence
from typing import Any

from dashboard.figures.style import BLUE
from dashboard.report import svg_paths


def legend(traces: Sequence[Any]) -> str:
    entries = "".join(f"<span>{_sample(trace)}{html.escape(html.unescape(trace.name))}</span>" for trace in traces)
    return f'<div class="legend">{entries}</div>' if entries else ""


def _sample(trace: Any) -> str:
    """A short line and a marker in the style of the trace."""
    line, marker = trace.line, trace.marker
    sample = f'<rect x="1" y="-5" width="18" height="10" fill="{trace.fillcolor}"/>' if trace.fill else ""
    if "lines" in trace.mode:
        style = svg_paths.stroke_attributes(line.color or BLUE, 2, line.dash)
        sample += f'<path d="M1,0h18" fill="none" {style}/>'
    if "markers" in trace.mode:
        size = marker.size if isinstance(marker.size, int | float) else marker.size[0]
        path, outlined = svg_paths.symbol_path(marker.symbol or "circle", size)
        color = marker.line.color or marker.color or line.color
        style = f'fill="none" {svg_paths.stroke_attributes(color, 1.6, None)}' if outlined else f'fill="{color}"'
        sample += f'<path transform="translate(10,0)" d="{path}" {style}/>'
    return f'<svg width="20" height="14" viewBox="0 -7 20 14">{sample}</svg>'
