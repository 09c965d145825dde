"""Parts of a report as the template shows them: bounded tables, the figures of the pages, a section an incident. Pure.

A report holds plotly.js itself, so that it loads nothing. Its policy names the two scripts by their hashes: no other
one runs, whatever a person has named a run or a metric.
"""

import hashlib
import html
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go  # type: ignore[import-untyped]
from markupsafe import Markup

from dashboard import formatting
from dashboard.data import incidents, pending
from dashboard.data.facts import RunFacts
from dashboard.data.incident_window import MAX_WINDOW_STEPS, IncidentWindow, rewound_steps, skipped_batches
from dashboard.data.incidents import before_and_after, timeline
from dashboard.data.tables import in_zone
from dashboard.figures.component import PLOTLY_JS, as_json
from dashboard.figures.incident import incident_figure
from dashboard.report.contents import ReportContents, ReportIncident
from db.models import Intervention
from lossguard.vocabulary import wording


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


def incident_sections(contents: ReportContents, chosen: Iterable[ReportIncident]) -> list[dict[str, Any]]:
    """Return sections by incident number; they and pictures are made in the order of `chosen`, within limits."""
    sections: list[dict[str, Any]] = []
    bytes_left, letters_left = contents.limits.max_picture_bytes, contents.limits.max_sections_letters
    for each in chosen:
        section = _section(contents, each)
        letters_left -= len(str(section))
        if letters_left < 0:
            break
        drawn = _picture(contents.facts, each)
        bytes_left -= len(drawn or "")
        shown = drawn if bytes_left >= 0 else None
        caption = _caption(contents, each.window, drawn=shown is not None)
        sections.append(section | {"picture": shown, "caption": caption})
    return sorted(sections, key=lambda section: section["number"])


def _section(contents: ReportContents, each: ReportIncident) -> dict[str, Any]:
    incident, interventions, facts = each.incident, each.interventions, contents.facts
    numbers = None
    if each.window is not None and each.window.bands:
        numbers = bounded_table(before_and_after(each.window, incident), contents)
    return {
        "number": incident.number,
        "kind": formatting.incident_kind(incident.kind),
        "state": incident.state,
        "standing": pending.standing(facts, incident),
        "sentence": formatting.incident_sentence(incident),
        "numbers": numbers,
        "timeline": _timeline(contents, each),
        "reasons": _reasons(contents, incident.details),
        "interventions": [_intervention(contents, one) for one in interventions],
        "skipped": [wording.batches(*skipped) for skipped in skipped_batches(facts, interventions)],
        "verdict": _verdict(contents, each),
    }


def _timeline(contents: ReportContents, each: ReportIncident) -> list[tuple[str, str, str, str]]:
    """Name, step, time and note of each entry."""
    times = {} if each.window is None else each.window.step_times
    entries = timeline(each.incident, each.interventions, contents.facts.orders, times.get)
    return [
        (
            entry.name,
            "" if entry.step is None else f"step {entry.step:,}",
            "" if entry.at is None else formatting.moment(entry.at, contents.zone),
            entry.note,
        )
        for entry in entries
    ]


def _verdict(contents: ReportContents, each: ReportIncident) -> dict[str, Any] | None:
    verdict = each.incident.verdict
    if not verdict:
        return None
    rows, letters = contents.limits.max_reasons, contents.limits.max_reason_letters
    arms = pd.DataFrame(incidents.arms(verdict))
    return {
        "sentence": cut(verdict.get("sentence", ""), letters),
        "cause": cut(incidents.cause_of(verdict), letters),
        "culprits": cut(incidents.culprits(verdict), letters),
        "arms": bounded_table(arms, contents, max_rows=rows, max_letters=letters),
    }


def _reasons(contents: ReportContents, details: Mapping[str, Any]) -> list[str]:
    """The first ones: an imported run or a replay may bring any number of any length."""
    limits = contents.limits
    reasons = details.get("reasons", [])
    return [cut(reason, limits.max_reason_letters) for reason in reasons[: limits.max_reasons]]


def _intervention(contents: ReportContents, each: Intervention) -> dict[str, Any]:
    facts = contents.facts
    return {
        "name": f"Intervention {each.number}, attempt {each.attempt}",
        "state": each.state,
        "sentence": formatting.intervention_sentence(each, facts.orders.get(each.number)),
        "reasons": _reasons(contents, each.details),
    }


def _picture(facts: RunFacts, each: ReportIncident) -> Markup | None:
    number, window = each.incident.number, each.window
    if window is None or not len(window.original):
        return None
    rewinds = rewound_steps(facts, each.interventions)
    figure = incident_figure(window, each.incident, each.interventions, rewinds, None)
    return picture(figure, label=f"Signals around incident {number}", scale=PICTURE_SCALE)


def _caption(contents: ReportContents, window: IncidentWindow | None, *, drawn: bool) -> str:
    """Say which steps the picture shows, or why there is none."""
    if window is not None and not len(window.original):
        return "No picture: the store no longer has these steps."
    if window is None or not drawn:
        limit = f"a report has at most {contents.limits.max_incident_pictures} of them, of limited size"
        return f"No picture: {limit}. The dashboard shows it."
    part = "" if window.complete else f", not the whole incident: a picture shows at most {MAX_WINDOW_STEPS:,} steps"
    return f"Steps {window.first:,} to {window.last:,}{part}."
