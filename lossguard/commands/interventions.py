"""An intervention as the commands print it. Pure."""

from typing import Any

from lossguard.commands.readable import batches, count
from lossguard.states import InterventionState, OrderKind, RunState

NAMES = ("number", "incident", "kind", "state", "attempt", "rewind_to", "skip_from", "skip_to", "lr_scale", "remedies")
UNDER_WAY = (
    InterventionState.PROPOSED,
    InterventionState.APPROVED,
    InterventionState.ORDERED,
    InterventionState.APPLIED,
)


def fields(intervention: dict[str, Any]) -> dict[str, Any]:
    """An intervention as `--json` prints it."""
    shown = {name: intervention.get(name) for name in (*NAMES, "created_at", "changed_at")}
    return shown | {"reasons": (intervention.get("details") or {}).get("reasons", [])}


def action_of(intervention: dict[str, Any]) -> str:
    """Such as "rollback to 600, verified"."""
    to = "" if intervention["rewind_to"] is None else f" to {count(intervention['rewind_to'])}"
    return f"{intervention['kind']}{to}, {intervention['state']}"


def lines_of(intervention: dict[str, Any]) -> list[str]:
    """The intervention and its reasons, one line each."""
    skipped = batches(intervention["skip_from"], intervention["skip_to"])
    skips = "" if skipped == "-" else f"; batches {skipped} skipped"
    head = f"Intervention {intervention['number']}: {action_of(intervention)}{skips}"
    return [head, *(f"  {reason}" for reason in fields(intervention)["reasons"])]


def waiting(run: dict[str, Any]) -> list[dict[str, Any]]:
    """The interventions of a run that wait for a person: proposed ones, and a hold of a run that is running."""
    return [each for each in run["interventions"] if is_proposed(each) or (_holds(each) and is_running(run))]


def is_proposed(intervention: dict[str, Any]) -> bool:
    return bool(intervention["state"] == InterventionState.PROPOSED)


def is_under_way(intervention: dict[str, Any]) -> bool:
    """Whether something is still to happen: a decision, an order, a verification or a release."""
    return intervention["state"] in UNDER_WAY


def is_running(run: dict[str, Any]) -> bool:
    return bool(run["state"] == RunState.RUNNING)


def _holds(intervention: dict[str, Any]) -> bool:
    return bool(intervention["kind"] == OrderKind.HOLD and intervention["state"] == InterventionState.APPLIED)
