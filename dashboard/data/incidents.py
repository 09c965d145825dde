"""An incident as text and tables: timeline, numbers before and after, and the cause that a replay found. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dashboard import formatting
from dashboard.axes import Floats
from dashboard.data.incident_window import IncidentWindow
from db.models import Incident, Intervention, Order
from db.records.hardware import HardwareSample
from db.run_states import rewind_target
from lossguard.vocabulary import wording
from lossguard.vocabulary.hardware import describe_errors
from lossguard.vocabulary.metrics import short_name
from lossguard.vocabulary.states import Cause, IncidentKind, IncidentState, InterventionState, OrderKind
from lossguard.vocabulary.wording import plural

StepTime = Callable[[int], float | None]
"""Unix seconds at which a step of the incident's line was done."""

DECISIONS: Mapping[str, str] = {
    OrderKind.ROLLBACK: "Rollback decided",
    OrderKind.HOLD: "Hold decided",
    OrderKind.RELEASE: "Released",
}
PROPOSALS: Mapping[str, str] = {OrderKind.ROLLBACK: "Rollback proposed", OrderKind.HOLD: "Hold proposed"}


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    name: str
    step: int | None
    at: float | None
    """Unix seconds."""
    note: str = ""


def timeline(
    incident: Incident, interventions: Sequence[Intervention], orders: Mapping[int, Order], step_time: StepTime
) -> list[TimelineEntry]:
    """The incident by step, then the interventions in their order; `orders` by number of the intervention."""
    entries = _incident_entries(incident, step_time)
    for each in interventions:
        entries += _intervention_entries(each, orders.get(each.number))
    if incident.state == IncidentState.CLOSED:
        entries.append(TimelineEntry("Closed", None, incident.changed_at, incident.outcome or ""))
    return entries


def _incident_entries(incident: Incident, step_time: StepTime) -> list[TimelineEntry]:
    def entry(name: str, step: int, note: str = "") -> TimelineEntry:
        return TimelineEntry(name, step, step_time(step), note)

    onset, detected = incident.onset_step, incident.detected_step
    if incident.kind == IncidentKind.STALL:  # found by the clock, not at a step
        found = TimelineEntry("Detected", None, incident.opened_at, "no step for longer than is usual")
        entries = [entry("Last step", onset), found]
        if incident.end_step is not None and incident.end_step > onset:  # else the run ended
            entries.append(entry("Steps again", incident.end_step))
        return entries
    signal, is_replay = short_name(incident.signal), incident.kind == IncidentKind.REPLAY_MISMATCH
    entries = [entry("Detected", detected, f"{signal}, score {formatting.number(incident.score)}")]
    if is_replay:
        entries.append(entry("First difference", onset, "the recomputed loss is not the recorded one"))
    elif incident.kind == IncidentKind.SLOWDOWN:
        entries.append(entry("Onset", onset, "from here on the run is slower than before"))
    elif incident.kind == IncidentKind.HELD_OUT_RISE:
        entries.append(entry("Onset", onset, "from here on the held-out loss lies above its lowest level"))
    elif onset < detected:
        lead = formatting.plural(detected - onset, "step")
        entries.append(entry("Precursor", onset, f"a signal leaves its band, {lead} before the alarm"))
    if incident.peak_step is not None:
        peak = formatting.number(incident.details.get("peak_value"))
        entries.append(entry("Largest difference" if is_replay else "Peak", incident.peak_step, f"{signal} {peak}"))
    if incident.end_step is not None and not is_replay:
        is_slowdown = incident.kind == IncidentKind.SLOWDOWN
        entries.append(entry("End" if is_slowdown else "Last step out of band", incident.end_step))
    return sorted(entries, key=lambda each: each.step or 0)


def _intervention_entries(each: Intervention, order: Order | None) -> list[TimelineEntry]:
    asked = each.state in (InterventionState.PROPOSED, InterventionState.REJECTED)
    name = (PROPOSALS if asked else DECISIONS).get(each.kind, each.kind)
    decided = each.details.get("decided_step")
    entries = [TimelineEntry(name, decided, each.created_at, f"intervention {each.number}")]
    if order is not None:
        by = f"approved by {order.approved_by}" if order.approved_by else ""
        entries.append(TimelineEntry("Order issued", None, order.created_at, by))
    if order is not None and order.answered_at is not None:
        step = rewind_target(each, order)
        note = order.detail or ""
        if not note and each.kind == OrderKind.ROLLBACK and each.skip_from is not None and each.skip_to is not None:
            skipped = formatting.plural(each.skip_to - each.skip_from, "batch", "batches")
            note = f"rewound to step {formatting.count(step)}, {skipped} skipped"
        state = "refused" if order.refusal else order.state
        entries.append(TimelineEntry(f"Order {state}", step, order.answered_at, note))
    return entries + _outcome(each)


def _outcome(each: Intervention) -> list[TimelineEntry]:
    due = each.details.get("verify_at")
    match each.state:
        case InterventionState.PROPOSED | InterventionState.ORDERED:
            return []
        case InterventionState.APPLIED:
            return [] if due is None else [TimelineEntry("Verification due", due, None)]
        case InterventionState.VERIFIED:
            return [TimelineEntry("Verified", due, each.changed_at)]
    return [TimelineEntry(each.state.capitalize(), None, each.changed_at)]


LOOK_BACK_STEPS = 1000
"""Steps before the onset of an incident in which an error of the hardware is worth a look."""
RECENT_STEPS = 20
"""The value now is the median of the last steps shown, so many of them."""


def before_and_after(shown: IncidentWindow, incident: Incident) -> pd.DataFrame:
    """One row per signal."""
    return pd.DataFrame(_row(name, shown, incident) for name in shown.bands)


def _row(name: str, shown: IncidentWindow, incident: Incident) -> dict[str, str]:
    band, steps = shown.bands[name], shown.original.steps
    values = shown.original.metrics[name]
    end = incident.end_step if incident.end_step is not None else steps[-1]
    onset = int(np.searchsorted(steps, incident.onset_step))
    during = slice(onset, int(np.searchsorted(steps, end, side="right")))
    onset_shown = steps[0] <= incident.onset_step <= steps[-1]
    expected, low, high = (
        formatting.number(float(column[onset])) if onset_shown and not np.isnan(column[onset]) else "-"
        for column in (band.expected, band.low, band.high)
    )
    return {
        "Signal": short_name(name),
        "Expected at onset": expected,
        "Band at onset": f"{low} .. {high}" if onset_shown else "-",
        "Most extreme value": _most_extreme(values[during], band.expected[during]),
        "Highest score": formatting.number(float(np.max(band.score[during])) if len(values[during]) else None),
        "Now": _now(name, shown),
    }


def _most_extreme(values: Floats, expected: Floats) -> str:
    """The value farthest from its expectation; one that is not finite is farther than any other."""
    non_finite = values[~np.isfinite(values)]
    if len(non_finite):
        return formatting.number(float(non_finite[0]))
    distance = np.abs(values / 2 - expected / 2)  # halves: the difference of two huge values would overflow
    return formatting.number(float(values[np.nanargmax(distance)])) if np.isfinite(distance).any() else "-"


def _now(name: str, shown: IncidentWindow) -> str:
    rows = shown.replacement
    if rows is None or name not in rows.metrics:
        rows = shown.original
    recent = rows.metrics[name][-RECENT_STEPS:]
    finite = recent[np.isfinite(recent)]
    return formatting.number(2 * float(np.median(finite / 2))) if len(finite) else "-"


CAUSES: Mapping[str, str] = {
    Cause.HARDWARE: "hardware, or something else transient",
    Cause.DATA: "the data",
    Cause.STATE: "the state",
    Cause.DATA_X_STATE: "these batches in this state",
    Cause.UNDETERMINED: "undetermined",
}


def cause_of(verdict: Mapping[str, Any]) -> str:
    """The cause; as it is stored where this version does not know it."""
    cause = str(verdict.get("cause"))
    return CAUSES.get(cause, cause)


def culprits(verdict: Mapping[str, Any]) -> str:
    """The batches that cause the incident; empty when none were found."""
    found = verdict.get("culprits") or []
    return ", ".join(wording.batches(each.get("batch_from"), each.get("batch_to")) for each in found)


def arms(verdict: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for each replay: state, batches, and whether the incident occurred again."""
    return [
        {
            "State": f"{arm.get('state')} (step {formatting.count(arm.get('checkpoint'))})",
            "Batches": arm.get("batches"),
            "Reproduced": "yes" if arm.get("reproduced") else "no",
            "Worst": formatting.number(arm.get("worst")),
            "Expected": formatting.number(arm.get("expected")),
        }
        for arm in (verdict.get("evidence") or {}).get("arms") or []
    ]


def errors_before(incident: Incident, found: Sequence[HardwareSample]) -> list[str]:
    """A sentence for each error from LOOK_BACK_STEPS before the onset to the detection, oldest first.

    A sample comes up to its interval after the error; one that was taken after the incident was stored belongs to steps
    that were computed again.
    """
    sentences = []
    for sample in found:
        if not sample.num_errors or sample.step is None or sample.time > incident.opened_at:
            continue
        if incident.onset_step - LOOK_BACK_STEPS <= sample.step <= incident.detected_step:
            steps = incident.onset_step - sample.step
            when = f"{plural(abs(steps), 'step')} {'before' if steps >= 0 else 'after'} the onset"
            sentences.append(f"{describe_errors(sample.readings)} of {sample.device} on {sample.host}, {when}.")
    return sentences
