"""One section for each incident of a report, as the template shows it. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from markupsafe import Markup

from dashboard import formatting
from dashboard.data import incidents, pending
from dashboard.data.facts import RunFacts
from dashboard.data.incident_window import MAX_WINDOW_STEPS, IncidentWindow, rewound_steps, skipped_batches
from dashboard.data.incidents import before_and_after, timeline
from dashboard.figures.incident import incident_figure
from dashboard.report.contents import ReportContents, ReportIncident
from dashboard.report.parts import PICTURE_SCALE, ReportTable, bounded_table, cut, picture
from db.models import Intervention
from lossguard.vocabulary import wording


def incident_sections(contents: ReportContents, incidents: Iterable[ReportIncident]) -> list[dict[str, Any]]:
    """Return sections by incident number; they and pictures are made in the order of `incidents`, within limits."""
    sections: list[dict[str, Any]] = []
    bytes_left, letters_left = contents.limits.max_picture_bytes, contents.limits.max_sections_letters
    for each in incidents:
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
    return {
        "number": incident.number,
        "kind": formatting.incident_kind(incident.kind),
        "state": incident.state,
        "standing": pending.standing(facts, incident),
        "sentence": formatting.incident_sentence(incident),
        "numbers": _numbers(contents, each),
        "timeline": _timeline(contents, each),
        "reasons": _reasons(contents, incident.details),
        "interventions": [_intervention(contents, one) for one in interventions],
        "skipped": [wording.batches(*skipped) for skipped in skipped_batches(facts, interventions)],
        "verdict": _verdict(contents, each),
    }


def _numbers(contents: ReportContents, each: ReportIncident) -> ReportTable | None:
    if each.window is None or not each.window.bands:
        return None
    return bounded_table(before_and_after(each.window, each.incident), contents)


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
