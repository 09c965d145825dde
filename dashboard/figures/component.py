"""A Streamlit component for plotly figures that updates in place and reports the range in view.

Streamlit's own plotly chart is a new element whenever its values change: a live curve would flicker and lose its
zoom at every report. This component keeps one drawing per key, takes its colours from the page's theme, and reports
the range in view, so that the page can read that range at full resolution.

The page sends only the name of a figure, which is a hash of its content; the browser fetches the content from server.py
when the name is new. `pack` encodes a figure once for all viewers.
"""

import gzip
import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go  # type: ignore[import-untyped]
import streamlit as st

PLOTLY_JS = Path(__file__).parent / "vendor" / "plotly-basic.min.js"
"""plotly.js with lines, bars and pies only (MIT): it loads five times faster than the complete library of the Python
package."""
PLOTLY_ROUTE = "/lossguard/plotly.min.js"
FIGURES_ROUTE = "/lossguard/figures/"
"""Route on which server.py serves PLOTLY_JS and packed figures."""

MAX_CACHED_FIGURES = 256
"""Packed figures in the server's memory; the least recently shown ones are dropped."""


def _source(*names: str) -> str:
    return "\n".join((Path(__file__).parent / name).read_text(encoding="utf-8") for name in names)


def _version(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


CHART_JS = _source("chart_view.js", "chart_tools.js", "sticky_axis.js", "drawing.js", "component.js").encode()
"""JavaScript module that draws a figure."""
CHART_ROUTE = "/lossguard/chart.js"
PLOTLY_URL = f"{PLOTLY_ROUTE}?v={_version(PLOTLY_JS.read_bytes())}"
CHART_URL = f"{CHART_ROUTE}?v={_version(CHART_JS)}"
LOADER = f"""\
const chart = import(location.origin + "{CHART_URL}");
export default async (component) => (await chart).default(component);
"""
"""Streamlit sends the script of a component with every message: this one is small, and the browser keeps the rest."""

PRESETS = "".join(
    f'<button type="button" value="{value}">{label}</button>'
    for label, value in (("All", "all"), ("Last 10%", "10%"), ("Last 1,000", "1000"), ("Follow", "follow"))
)
"""Buttons above a run's chart: how much of it is in view (chart_view.js)."""

_component = st.components.v2.component(
    "lossguard_figure",
    html='<div class="lossguard-chart">'
    f'<div class="lossguard-presets" role="group" aria-label="In view" hidden>{PRESETS}</div>'
    '<div class="lossguard-figure"></div><div class="lossguard-axis"></div></div>',
    css=_source("component.css"),
    js=LOADER,
    isolate_styles=False,  # plotly puts its style sheet into the document's head
)


@dataclass(frozen=True, slots=True)
class PackedFigure:
    """A figure as the browser fetches it."""

    name: str
    """SHA-256 of the content."""
    content: bytes
    """JSON, compressed with gzip."""
    height: int
    """Height in pixels: the page reserves it before the figure is drawn."""


class FigureCache:
    """The packed figures shown last, by name; shared by all sessions and the server of this process."""

    def __init__(self, max_figures: int = MAX_CACHED_FIGURES) -> None:
        self._max_figures = max_figures
        self._figures: OrderedDict[str, PackedFigure] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, packed: PackedFigure) -> None:
        with self._lock:
            self._figures[packed.name] = packed
            self._figures.move_to_end(packed.name)
            while len(self._figures) > self._max_figures:
                self._figures.popitem(last=False)

    def get(self, name: str) -> PackedFigure | None:
        with self._lock:
            return self._figures.get(name)


figure_cache = FigureCache()


def pack(figure: go.Figure) -> PackedFigure:
    """The figure as compressed JSON, under the hash of its content."""
    text = as_json(figure).encode()
    return PackedFigure(hashlib.sha256(text).hexdigest(), gzip.compress(text, 1, mtime=0), int(figure.layout.height))


@st.cache_resource(show_spinner=False, max_entries=320)
def cached_figure(key: tuple[Hashable, ...], _make: Callable[[], go.Figure]) -> PackedFigure:
    """Pack a figure once for all viewers. `key` holds all that it depends on; `_make` is called for a new one."""
    return pack(_make())


def as_json(figure: go.Figure) -> str:
    return json.dumps(figure.to_plotly_json(), separators=(",", ":"), allow_nan=False, default=_plain)


def _plain(value: Any) -> Any:
    """numpy's arrays and numbers that plotly does not encode itself: empty arrays, and integers beyond 2^31."""
    return value.tolist()


def show(
    figure: go.Figure | PackedFigure,
    *,
    key: str,
    label: str = "Chart",
    title: str = "",
    view: Mapping[str, Any] | None = None,
    on_view: Callable[[], None] | None = None,
    csv: str | None = None,
) -> None:
    """Draw `figure`; `label` is for screen readers, `title` (default: the label) stands above a downloaded picture.

    `view` is what the URL says about the chart (views/chart.py); `on_view` is called when `viewed(key)` has
    changed. `csv` is the URL of the values in view.
    """
    packed = figure if isinstance(figure, PackedFigure) else pack(figure)
    figure_cache.put(packed)
    data = {
        "figure": FIGURES_ROUTE + packed.name,
        "script": PLOTLY_URL,
        "height": packed.height,
        "label": label,
        "title": title or label,
        "view": view,
        "csv": csv,
    }
    _component(data=data, key=key, on_view_change=on_view or (lambda: None))


def viewed(key: str) -> dict[str, Any]:
    """Return the viewer's changes to the chart, as chart_view.js reports them; empty before the first report."""
    found: dict[str, Any] = (st.session_state.get(key) or {}).get("view") or {}
    return found
