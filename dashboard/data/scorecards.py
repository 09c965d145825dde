"""The cached read of the scorecard: it reads all runs at once, so it is not read as often as a live page."""

from collections.abc import Sequence

import streamlit as st
from sqlalchemy.orm import Session

from dashboard.data.store import cached_read, database_url
from monitor.detection.scorecard.scored_run import ScoredRun
from monitor.scored_runs import ScoredRuns

CACHE_SECONDS = 10.0


@cached_read(CACHE_SECONDS, max_entries=32)
def scored_runs(session: Session, project: str | None, since: float | None) -> tuple[Sequence[ScoredRun], int]:
    """(the scored runs of a project, or of all, that reported since then; the number of those left out, in auto)."""
    found = _known_scores(database_url()).read(session, project=project, since=since)
    scored = [each.score for each in found if each.score is not None]
    return scored, len(found) - len(scored)


@st.cache_resource(show_spinner=False, max_entries=8)
def _known_scores(url: str) -> ScoredRuns:
    return ScoredRuns()
