"""What a replay found about an incident, in words. Pure."""

from collections.abc import Mapping
from typing import Any

from dashboard import formatting
from lossguard.states import Cause

CAUSES = {
    Cause.HARDWARE: "hardware, or something else that passed",
    Cause.DATA: "the data",
    Cause.STATE: "the state",
    Cause.DATA_X_STATE: "these batches in this state",
    Cause.UNDETERMINED: "undetermined",
}


def describe(verdict: Mapping[str, Any]) -> str:
    told = str(verdict.get("cause"))
    return CAUSES.get(Cause(told), told) if told in tuple(Cause) else told


def culprits(verdict: Mapping[str, Any]) -> str:
    """The batches that do it; empty when none were found."""
    found = verdict.get("culprits") or []
    return ", ".join(formatting.batches(each.get("batch_from"), each.get("batch_to")) for each in found)


def arms(verdict: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was trained on what, and whether the trouble came again: one row each."""
    return [
        {
            "State": f"{arm.get('state')} (step {formatting.count(arm.get('checkpoint'))})",
            "Batches": arm.get("batches"),
            "Trouble again": "yes" if arm.get("reproduced") else "no",
            "Worst": formatting.number(arm.get("worst")),
            "Expected": formatting.number(arm.get("expected")),
        }
        for arm in (verdict.get("evidence") or {}).get("arms") or []
    ]
