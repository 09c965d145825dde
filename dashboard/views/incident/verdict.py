"""What a replay found about an incident."""

import streamlit as st

from dashboard import formatting
from dashboard.data import cause
from dashboard.data.facts import RunFacts
from db.models import Incident


def show(facts: RunFacts, incident: Incident) -> None:
    st.subheader("Replay", anchor=False)
    verdict = incident.verdict
    if not verdict:
        command = f"python -m trainer replay {facts.run.id}/{incident.number}"
        st.caption(f"No replay has looked for the cause yet: `{command.replace('`', '')}`.")
        return
    st.markdown(f"**{formatting.escape_markdown(str(verdict.get('sentence', '')))}**")
    st.caption(f"Cause: {formatting.escape_markdown(cause.describe(verdict))}")
    if found := cause.culprits(verdict):
        st.markdown(f"Batches that do it: {formatting.escape_markdown(found)}")
    if rows := cause.arms(verdict):
        st.dataframe(rows, hide_index=True, key="replay-arms")
