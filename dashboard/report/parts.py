"""Parts of a report as the template shows them: tables of bounded size, and the figures of the pages. Pure.

A report holds plotly.js itself, so that it loads nothing. Its policy names the two scripts by their hashes: no other
one runs, whatever a person has named a run or a metric.
"""

import hashlib
import html
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go  # type: ignore[import-untyped]
from markupsafe import Markup

from dashboard.data.tables import in_zone
from dashboard.figures.component import PLOTLY_JS, as_json
from dashboard.report.contents import ReportContents


@dataclass(frozen=True, slots=True)
class ReportTable:
    names: Sequence[str]
    rows: Sequence[Sequence[Any]]
    num_omitted: int = 0
    """Rows that are left out."""
    last_is_total: bool = False


def bounded_table(
    frame: pd.DataFrame, contents: ReportContents, *, max_rows: int | None = None, max_letters: int | None = None
) -> ReportTable:
    """The first rows, within the limits of the report; cells with more than `max_letters` are cut."""
    limits = contents.limits
    cells: list[list[str]] = []
    letters_left = limits.max_table_letters
    rows = in_zone(frame, contents.zone).head(max_rows or limits.max_rows)
    for row in rows.itertuples(index=False, name=None):
        texts = [cut(cell, max_letters or limits.max_cell_letters) for cell in row]
        letters_left -= sum(map(len, texts))
        if letters_left < 0:
            break
        cells.append(texts)
    return ReportTable(list(frame.columns), cells, len(frame) - len(cells))


def cut(cell: Any, max_letters: int) -> str:
    """The text of `cell`, at most its first `max_letters`."""
    text = str(cell)
    return text if len(text) <= max_letters else f"{text[:max_letters]} .. ({len(text):,} characters)"


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
