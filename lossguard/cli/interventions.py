"""Interventions as the commands show them."""

from collections.abc import Mapping
from typing import Any

from lossguard.vocabulary.states import InterventionState, OrderKind, RunState
from lossguard.vocabulary.wording import MISSING, batches, count

NAMES = ("number", "incident", "kind", "state", "attempt", "rewind_to", "skip_from", "skip_to", "lr_scale", "remedies")


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
    skips = "" if skipped == MISSING else f"; batches {skipped} skipped"
    head = f"Intervention {intervention['number']}: {action_of(intervention)}{skips}{describe_changes(intervention)}"
    return [head, *(f"  {reason}" for reason in fields(intervention)["reasons"])]


def describe_changes(rollback: Mapping[str, Any]) -> str:
    """Changes of the training by a rollback, as the end of a sentence: "; learning rate x 0.5; remedies: clip"."""
    changes = "" if rollback.get("lr_scale") is None else f"; learning rate x {rollback['lr_scale']:g}"
    return f"{changes}; remedies: {', '.join(rollback['remedies'])}" if rollback.get("remedies") else changes


def waiting(run: dict[str, Any]) -> list[dict[str, Any]]:
    """The interventions of a run that wait for a person: proposed ones, and a hold of a run that is running."""
    return [each for each in run["interventions"] if is_proposed(each) or (is_holding(each) and is_running(run))]


def is_proposed(intervention: dict[str, Any]) -> bool:
    return bool(intervention["state"] == InterventionState.PROPOSED)


def is_running(run: dict[str, Any]) -> bool:
    return bool(run["state"] == RunState.RUNNING)


def is_holding(intervention: dict[str, Any]) -> bool:
    """Return True if it is a hold that stops the run until an operator releases it."""
    return bool(intervention["kind"] == OrderKind.HOLD and intervention["state"] == InterventionState.APPLIED)
