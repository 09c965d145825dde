"""The figures of the pages in a report: their values, and the scripts that draw them. Pure.

A report holds plotly.js itself, so that it loads nothing. Its policy names the two scripts by their hashes: no other
one runs, whatever a person has named a run or a metric.
"""

import hashlib
import html
from base64 import b64encode
from pathlib import Path

import plotly.graph_objects as go  # type: ignore[import-untyped]
from markupsafe import Markup

from dashboard.figures.component import PLOTLY_JS, as_json

HERE = Path(__file__).parent
PICTURE_SCALE = 0.56
"""Height of a report's picture relative to the page's figure: the first curves fit on the first sheet."""


def _script(*files: Path) -> str:
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


SCRIPTS = (_script(PLOTLY_JS), _script(PLOTLY_JS.parent.parent / "drawing.js", HERE / "report.js"))
"""plotly.js, and what draws the pictures with it; in each report that has one."""


def _hash(script: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


POLICY = (
    f"default-src 'none'; script-src {' '.join(map(_hash, SCRIPTS))}; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)
"""Content security policy of a report."""


def picture(figure: go.Figure, *, label: str, scale: float = 1.0) -> Markup:
    """The element of a figure of `scale` times its height; `label` is for screen readers."""
    height = figure.layout.height = int(scale * figure.layout.height)
    values = as_json(figure).replace("<", "\\u003c")  # no text ends the element
    opening = f'<div class="chart" role="img" aria-label="{html.escape(label)}" style="height:{height}px">'
    return Markup(f'{opening}<script type="application/json">{values}</script></div>')
