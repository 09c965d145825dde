"""What a replay found about an incident."""

from typing import Any

import streamlit as st

from dashboard import words
from dashboard.facts import RunFacts
from db.models import Incident
from lossguard.protocol import Cause

CAUSES = {
    Cause.HARDWARE: "hardware, or something else that passed",
    Cause.DATA: "the data",
    Cause.STATE: "the state",
    Cause.DATA_X_STATE: "these batches in this state",
    Cause.UNDETERMINED: "undetermined",
}


def show(known: RunFacts, incident: Incident) -> None:
    st.subheader("Replay", anchor=False)
    verdict = incident.verdict
    if not verdict:
        command = f"python -m trainer replay {known.run.id}/{incident.number}"
        st.caption(f"No replay has looked for the cause yet: `{command.replace('`', '')}`.")
        return
    st.markdown(f"**{words.escaped(str(verdict.get('sentence', '')))}**")
    cause = str(verdict.get("cause"))
    st.caption(f"Cause: {words.escaped(CAUSES.get(Cause(cause), cause) if cause in tuple(Cause) else cause)}")
    culprits(verdict.get("culprits") or [])
    arms(verdict.get("evidence") or {})


def culprits(found: list[dict[str, Any]]) -> None:
    if found:
        told = [words.batches(each.get("batch_from"), each.get("batch_to")) for each in found]
        st.markdown(f"Batches that do it: {words.escaped(', '.join(told))}")


def arms(evidence: dict[str, Any]) -> None:
    """What was trained on what, and whether the trouble came again."""
    rows = [
        {
            "State": f"{arm.get('state')} (step {words.steps(arm.get('checkpoint'))})",
            "Batches": arm.get("batches"),
            "Trouble again": "yes" if arm.get("reproduced") else "no",
            "Worst": words.number(arm.get("worst")),
            "Expected": words.number(arm.get("expected")),
        }
        for arm in evidence.get("arms") or []
    ]
    if rows:
        st.dataframe(rows, hide_index=True, key="replay-arms")
