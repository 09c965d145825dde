"""The cause of an incident, as a replay found it."""

import pandas as pd
import streamlit as st

from dashboard import formatting
from dashboard.data import cause
from dashboard.data.facts import RunFacts
from dashboard.views.table import show_table
from db.cli.command_engine import as_typed_here
from db.models import Incident
from lossguard.vocabulary.states import NOT_REPLAYED


def show(facts: RunFacts, incident: Incident) -> None:
    if incident.kind in NOT_REPLAYED:
        return
    st.subheader("Replay", anchor=False)
    verdict = incident.verdict
    if not verdict:
        command = f"{as_typed_here('python -m trainer replay')} {facts.run.id}/{incident.number}".replace("`", "")
        st.caption(f"No replay has been run yet. To look for the cause: `{command}`")
        return
    st.markdown(f"**{formatting.escape_markdown(str(verdict.get('sentence', '')))}**")
    st.caption(f"Cause: {formatting.escape_markdown(cause.describe(verdict))}")
    if culprits := cause.culprits(verdict):
        st.markdown(f"Batches that reproduce it: {formatting.escape_markdown(culprits)}")
    if rows := cause.arms(verdict):
        show_table(pd.DataFrame(rows), key="replay-arms")
