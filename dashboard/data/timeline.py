"""The course of an incident, from the first signal to the verified rollback. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dashboard import formatting
from db.interventions import rewind_target
from db.models import Incident, Intervention, Order
from lossguard.metrics import short_name

When = Callable[[int], float | None]
"""When a step of the incident's line was done, in unix seconds."""


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    name: str
    step: int | None
    at: float | None
    """Unix seconds."""
    note: str = ""


def timeline(
    incident: Incident, interventions: Sequence[Intervention], orders: dict[int, Order], when: When
) -> list[TimelineEntry]:
    """What happened on the incident's own line by step, then what was done about it."""
    moments = _course(incident, when)
    for each in interventions:
        moments += _care(each, orders.get(each.number))
    if incident.state == "closed":
        moments.append(TimelineEntry("Closed", None, incident.changed_at, incident.outcome or ""))
    return moments


def _course(incident: Incident, when: When) -> list[TimelineEntry]:
    onset, detected = incident.onset_step, incident.detected_step
    lead = formatting.plural(detected - onset, "step")
    signal = short_name(incident.signal)
    moments = [
        TimelineEntry("Detected", detected, when(detected), f"{signal}, score {formatting.number(incident.score)}")
    ]
    if onset < detected:
        moments.append(
            TimelineEntry("Precursor", onset, when(onset), f"a signal leaves its band, {lead} before the alarm")
        )
    if incident.peak_step is not None:
        value = f"{signal} {formatting.number(incident.details.get('peak_value'))}"
        moments.append(TimelineEntry("Peak", incident.peak_step, when(incident.peak_step), value))
    if incident.end_step is not None:
        moments.append(TimelineEntry("Last step out of band", incident.end_step, when(incident.end_step)))
    return sorted(moments, key=lambda moment: moment.step or 0)


def _care(each: Intervention, order: Order | None) -> list[TimelineEntry]:
    decided = each.details.get("decided_step")
    name = {"rollback": "Rollback decided", "hold": "Hold decided", "release": "Released"}.get(each.kind, each.kind)
    asked = " (a person is asked)" if each.state in ("proposed", "rejected") else ""
    moments = [TimelineEntry(f"{name}{asked}", decided, each.created_at, f"intervention {each.number}")]
    if order is not None:
        moments.append(TimelineEntry("Order given", None, order.created_at))
    if order is not None and order.answered_at is not None:
        went = rewind_target(each, order)
        moments.append(
            TimelineEntry(f"Order {order.state}", went, order.answered_at, order.detail or _went(each, went))
        )
    if each.state not in ("proposed", "ordered", "applied"):
        step = each.details.get("verify_at") if each.state == "verified" else None
        moments.append(TimelineEntry(each.state.capitalize(), step, each.changed_at))
    elif each.state == "applied" and each.details.get("verify_at") is not None:
        moments.append(TimelineEntry("To be verified", each.details["verify_at"], None))
    return moments


def _went(each: Intervention, went: int | None) -> str:
    if each.kind != "rollback" or each.skip_from is None or each.skip_to is None:
        return ""
    skipped = formatting.plural(each.skip_to - each.skip_from, "batch", "batches")
    return f"back to step {formatting.count(went)}, without {skipped}"
