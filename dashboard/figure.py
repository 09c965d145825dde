"""A plotly figure that stays on its page: new values are drawn into it, and a zoom is kept and told.

Streamlit's own plotly chart is a new element whenever its values change: a live curve would flicker and lose its
zoom at every report. This component keeps one drawing per key, takes its colours from the page's theme, and says
which steps are in view, so that they can be read at full resolution.
"""

from collections.abc import Callable
from pathlib import Path

import plotly  # type: ignore[import-untyped]
import plotly.graph_objects as go  # type: ignore[import-untyped]
import streamlit as st

PLOTLY_JS = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
PLOTLY_ROUTE = "/lossguard/plotly.min.js"
"""Where server.py serves PLOTLY_JS."""

_component = st.components.v2.component(
    "lossguard_figure",
    html='<div class="lossguard-figure"></div>',
    js=(Path(__file__).parent / "figure.js").read_text(encoding="utf-8"),
    isolate_styles=False,  # plotly puts its style sheet into the document's head
)


def show(figure: go.Figure, *, key: str, script: str = PLOTLY_ROUTE, on_window: Callable[[], None]) -> None:
    """Draw `figure`; `on_window` is called after a zoom, when `window(key)` has changed."""
    url = f"{script}?v={plotly.__version__}"
    _component(data={"figure": figure.to_plotly_json(), "script": url}, key=key, on_window_change=on_window)


def window(key: str) -> tuple[int, int] | None:
    """First and last step that the viewer zoomed to; None for the whole run."""
    bounds = st.session_state[key].get("window")
    return (int(bounds[0]), int(bounds[1])) if bounds else None
