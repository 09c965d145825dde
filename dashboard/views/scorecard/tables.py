"""The scored runs of a store, read less often than a live page because all runs are read at once, and their tables."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st
from sqlalchemy.orm import Session

from dashboard import formatting
from dashboard.data.store import cached_read, database_url
from monitor.detection.scorecard import wording
from monitor.detection.scorecard.endings import Ending
from monitor.detection.scorecard.scored_run import ScoredRun, ScoredSite
from monitor.detection.scorecard.totals import Totals, total
from monitor.scored_runs import ScoredRuns

CACHE_SECONDS = 10.0
ASSUMED = " (assumed)"
NUMBERS = (
    *("GPU-hours", "False per 1,000 GPU-hours", "Agreed", "GPU-hours saved", "Devices"),
    *("Done again", "Loading", "Dropped", "Lost in fact"),
)
"""Columns of texts that are numbers."""


@cached_read(CACHE_SECONDS, max_entries=32)
def scored_runs(session: Session, project: str | None, since: float | None) -> tuple[Sequence[ScoredRun], int]:
    """(the scored runs of a project, or of all, that reported since then; the number of those left out, in auto)."""
    found = _known_scores(database_url()).read(session, project=project, since=since)
    scored = [each.score for each in found if each.score is not None]
    return scored, len(found) - len(scored)


@st.cache_resource(show_spinner=False, max_entries=8)
def _known_scores(url: str) -> ScoredRuns:
    return ScoredRuns()


def endings(totals: Totals) -> pd.DataFrame:
    """Return the endings that occurred, with the sites where the policy would have acted or waited."""
    acted, waited = totals.acted, totals.waited
    return pd.DataFrame(
        {
            "What happened": text[0].upper() + text[1:],
            "The policy would have acted": acted[ending],
            "It would have waited": waited[ending],
            "Verdict": _verdict(ending),
        }
        for ending, text in wording.ENDINGS.items()
        if acted[ending] or waited[ending]
    )


def _verdict(ending: Ending) -> str:
    """Return the ending's verdict on acting and on waiting."""
    match ending:
        case Ending.SAME | Ending.OTHER:
            return "acting: agreed; waiting: missed"
        case Ending.RECOVERED | Ending.CONTINUED:
            return "acting: a false action; waiting: agreed"
        case Ending.DIED:
            return "acting: might have saved it; waiting: missed"
        case Ending.WORSE:
            return "acting: not known; waiting: agreed"
        case Ending.OPEN:
            return "not counted yet"
        case Ending.IN_AUTO:
            return "not compared"


def projects(runs: Sequence[ScoredRun]) -> pd.DataFrame:
    """One row per project, and one for all of them."""
    by_project = wording.by_project(runs)
    rows = [{"Project": name, "Runs": len(some)} | _figures(total(some)) for name, some in by_project.items()]
    if len(by_project) > 1:
        rows.append({"Project": "all", "Runs": len(runs)} | _figures(total(runs)))
    return pd.DataFrame(rows)


def runs(scored: Sequence[ScoredRun]) -> pd.DataFrame:
    """One row per run that has a site, those with the most false actions first."""
    rows = [(run, total([run])) for run in scored if run.sites]
    rows.sort(key=lambda row: (-row[1].false_actions, -row[1].missed))
    return pd.DataFrame(
        {
            "Run": run.id,
            "Project": run.project,
            "Mode": run.mode,
            "Devices": f"{run.num_devices}{'' if run.devices_are_known else ASSUMED}",
        }
        | _figures(totals)
        for run, totals in rows
    )


def _figures(totals: Totals) -> dict[str, object]:
    return {
        "GPU-hours": wording.number_or_dash(totals.gpu_hours or None),
        "Sites": totals.sites,
        "Would act": totals.actions,
        "False": totals.false_actions,
        "False per 1,000 GPU-hours": wording.rate(totals),
        "Agreed": f"{totals.agreed} of {totals.compared}",
        "Missed": totals.missed,
        "GPU-hours saved": wording.number_or_dash(totals.gpu_hours_saved),
    }


def sites(run: ScoredRun) -> pd.DataFrame:
    """One row per site of a run, with the terms of its hours in steps."""
    return pd.DataFrame(_site(run, each) for each in run.sites)


def _site(run: ScoredRun, each: ScoredSite) -> dict[str, object]:
    site, balance = each.site, each.balance
    terms = {"Done again": "again", "Loading": "loading", "Dropped": "dropped", "Lost in fact": "lost"}
    return {
        "Incidents": ", ".join(str(incident.number) for incident in site.incidents),
        "Kind": formatting.incident_kind(site.incidents[0].kind),
        "Onset": site.onset_step,
        "In auto": wording.action_text(site.action),
        "What happened": wording.ENDINGS[each.ending],
        **{
            title: formatting.number(None if balance is None else getattr(balance, name))
            for title, name in terms.items()
        },
        "GPU-hours saved": wording.number_or_dash(None if balance is None else run.hours(balance.saved)),
    }
