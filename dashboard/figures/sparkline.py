"""A line without axes, as small as a number: a picture that follows no theme, and needs no script. Pure.

Streamlit's own, of `st.metric`, loads Vega for it, which warns on the console of an axis without values.
"""

import html
from collections.abc import Sequence
from urllib.parse import quote

from dashboard.figures.style import BLUE

WIDTH, HEIGHT, MARGIN = 150, 48, 3
"""Size and margin of the picture, in pixels."""


def sparkline(values: Sequence[float], *, label: str) -> str:
    """HTML of the line through finite values at equal distances; `label` is for screen readers."""
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"><polyline points="{points(values)}" '
        f'fill="none" stroke="{BLUE}" stroke-width="2" stroke-linecap="round" stroke-linejoin="round"/></svg>'
    )
    size = f'width="{WIDTH}" height="{HEIGHT}" style="display: block"'
    return f'<img src="data:image/svg+xml,{quote(svg)}" {size} alt="{html.escape(label)}">'


def points(values: Sequence[float]) -> str:
    """Corners of the line, within WIDTH and HEIGHT; a constant, as a single value is, lies in the middle."""
    values = values if len(values) > 1 else [*values, *values]
    halves = [value / 2 for value in values]  # their difference does not overflow
    low, height = min(halves), max(halves) - min(halves)
    shares = [(half - low) / height if height else 0.5 for half in halves]
    step = (WIDTH - 2 * MARGIN) / (len(shares) - 1)
    return " ".join(
        f"{MARGIN + step * place:.1f},{MARGIN + (HEIGHT - 2 * MARGIN) * (1 - share):.1f}"
        for place, share in enumerate(shares)
    )
