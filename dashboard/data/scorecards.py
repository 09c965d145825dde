"""The cached read of the scorecard: it reads all runs at once, so it is not read as often as a live page."""

from collections.abc import Sequence

import streamlit as st

from dashboard.data.store import database_url, open_store
from db.scorecard import stored_runs
from monitor.detection.scorecard.scored_run import ScoredRun, score

CACHE_SECONDS = 10.0


def scored_runs(project: str | None, since: float | None) -> tuple[Sequence[ScoredRun], int]:
    """(the scored runs of a project, or of all, that reported since then; the number of those left out, in auto).

    Raises StoreUnavailable.
    """
    return _scored_runs(database_url(), project, since)


@st.cache_resource(ttl=CACHE_SECONDS, show_spinner=False, max_entries=32)
def _scored_runs(url: str, project: str | None, since: float | None) -> tuple[Sequence[ScoredRun], int]:
    with open_store(url) as session:
        records = stored_runs(session, project=project, since=since)
    scored = score(records)
    return scored, len(records) - len(scored)
