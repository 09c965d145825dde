"""The verdict of a replay about an incident, as text. Pure."""

from collections.abc import Mapping
from typing import Any

from dashboard import formatting
from lossguard.vocabulary import wording
from lossguard.vocabulary.states import Cause

CAUSES: Mapping[str, str] = {
    Cause.HARDWARE: "hardware, or something else transient",
    Cause.DATA: "the data",
    Cause.STATE: "the state",
    Cause.DATA_X_STATE: "these batches in this state",
    Cause.UNDETERMINED: "undetermined",
}


def describe(verdict: Mapping[str, Any]) -> str:
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
