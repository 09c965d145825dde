"""The cached read of the scorecard: it reads all runs at once, so it is not read as often as a live page."""

from collections.abc import Sequence

import streamlit as st

from dashboard.data.store import database_url, open_store
from monitor.detection.scorecard.scored_run import ScoredRun
from monitor.scored_runs import ScoredRuns

CACHE_SECONDS = 10.0


def scored_runs(project: str | None, since: float | None) -> tuple[Sequence[ScoredRun], int]:
    """(the scored runs of a project, or of all, that reported since then; the number of those left out, in auto).

    Raises StoreUnavailable.
    """
    return _scored_runs(database_url(), project, since)


@st.cache_resource(ttl=CACHE_SECONDS, show_spinner=False, max_entries=32)
def _scored_runs(url: str, project: str | None, since: float | None) -> tuple[Sequence[ScoredRun], int]:
    with open_store(url) as session:
        found = _known_scores(url).read(session, project=project, since=since)
    scored = [each.score for each in found if each.score is not None]
    return scored, len(found) - len(scored)


@st.cache_resource(show_spinner=False, max_entries=8)
def _known_scores(url: str) -> ScoredRuns:
    return ScoredRuns()
