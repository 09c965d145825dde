"""The timeline of an incident, from the first signal to the verified rollback. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dashboard import formatting
from db.models import Incident, Intervention, Order
from db.run_states import rewind_target
from lossguard.vocabulary.metrics import short_name
from lossguard.vocabulary.states import IncidentKind, IncidentState, InterventionState, OrderKind

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
    entries = _incident(incident, step_time)
    for each in interventions:
        entries += _intervention(each, orders.get(each.number))
    if incident.state == IncidentState.CLOSED:
        entries.append(TimelineEntry("Closed", None, incident.changed_at, incident.outcome or ""))
    return entries


def _incident(incident: Incident, step_time: StepTime) -> list[TimelineEntry]:
    def entry(name: str, step: int, note: str = "") -> TimelineEntry:
        return TimelineEntry(name, step, step_time(step), note)

    onset, detected = incident.onset_step, incident.detected_step
    if incident.kind == IncidentKind.STALL:
        return _stall(incident, step_time)
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


def _stall(incident: Incident, step_time: StepTime) -> list[TimelineEntry]:
    """Describe a stall: it is found by the clock, not at a step."""
    entries = [TimelineEntry("Last step", incident.onset_step, step_time(incident.onset_step))]
    entries.append(TimelineEntry("Detected", None, incident.opened_at, "no step for longer than is usual"))
    if incident.end_step is not None and incident.end_step > incident.onset_step:  # else the run ended
        entries.append(TimelineEntry("Steps again", incident.end_step, step_time(incident.end_step)))
    return entries


def _intervention(each: Intervention, order: Order | None) -> list[TimelineEntry]:
    asked = each.state in (InterventionState.PROPOSED, InterventionState.REJECTED)
    name = (PROPOSALS if asked else DECISIONS).get(each.kind, each.kind)
    decided = each.details.get("decided_step")
    entries = [TimelineEntry(name, decided, each.created_at, f"intervention {each.number}")]
    if order is not None:
        by = f"approved by {order.approved_by}" if order.approved_by else ""
        entries.append(TimelineEntry("Order issued", None, order.created_at, by))
    if order is not None and order.answered_at is not None:
        step = rewind_target(each, order)
        note = order.detail or _rollback_note(each, step)
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


def _rollback_note(each: Intervention, step: int | None) -> str:
    if each.kind != OrderKind.ROLLBACK or each.skip_from is None or each.skip_to is None:
        return ""
    skipped = formatting.plural(each.skip_to - each.skip_from, "batch", "batches")
    return f"rewound to step {formatting.count(step)}, {skipped} skipped"
