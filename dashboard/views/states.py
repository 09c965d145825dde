"""Badges of states: every state has one colour and one icon on all pages."""

import time
from typing import Literal

import streamlit as st

from dashboard import clock
from dashboard.data import collector_watch
from dashboard.data.progress import is_silent
from db.models import Run
from db.runs.fields import NEEDS_A_PERSON
from lossguard.states import IncidentState, InterventionState, RunState

SILENT_HELP = (
    "The run has not ended, but it no longer reports. Either it was killed, or it cannot reach the collector; then its "
    "spool holds the steps."
)
NO_NEWS_HELP = "The collector does not answer, so no report of this run can arrive. It may well be training."
Color = Literal["red", "orange", "blue", "green", "gray"]

BADGES: dict[str, tuple[Color, str]] = {
    RunState.RUNNING: ("blue", ":material/play_arrow:"),
    RunState.FINISHED: ("green", ":material/check:"),
    RunState.INTERRUPTED: ("gray", ":material/pause:"),
    RunState.FAILED: ("red", ":material/error:"),  # an intervention can fail, too
    IncidentState.WARNING: ("orange", ":material/warning:"),
    IncidentState.OPEN: ("red", ":material/error:"),
    IncidentState.TREATED: ("orange", ":material/healing:"),
    IncidentState.CLOSED: ("gray", ":material/check:"),
    InterventionState.PROPOSED: ("orange", ":material/person_raised_hand:"),
    InterventionState.ORDERED: ("blue", ":material/send:"),
    InterventionState.APPLIED: ("blue", ":material/hourglass_top:"),
    InterventionState.VERIFIED: ("green", ":material/verified:"),
    InterventionState.RECURRED: ("red", ":material/replay:"),
}


def run_badge(run: Run) -> None:
    """The state of a run, or since when it has been silent."""
    now = time.time()
    if is_silent(run, now) and collector_watch.has_address() and collector_watch.outage() is not None:
        since = clock.moment(run.last_report_at, clock.zone(st.context.timezone), now=now)
        st.badge(f"no news since {since}", color="gray", icon=":material/cloud_off:", help=NO_NEWS_HELP)
    elif is_silent(run, now):
        since = clock.moment(run.last_report_at, clock.zone(st.context.timezone), now=now)
        st.badge(f"silent since {since}", color="orange", icon=":material/signal_disconnected:", help=SILENT_HELP)
    else:
        badge(run.state)


def badge(state: str) -> None:
    color, icon = BADGES.get(state, ("gray", ":material/circle:"))
    st.badge(state, color=color, icon=icon)


def needs_a_person(run: Run, count: int) -> None:
    """A link to the incident that waits for a decision (the page chooses it); nothing where none does."""
    if count:
        text = NEEDS_A_PERSON if count == 1 else f"{NEEDS_A_PERSON} ({count})"
        label = f":orange-badge[:material/person_raised_hand: {text}]"
        st.page_link("views/incident/page.py", label=label, query_params={"run": run.id})
