"""Badges of states: every state has one colour and one icon on all pages."""

import time
from typing import Literal

import streamlit as st

from dashboard import clock, formatting
from dashboard.data import collector_watch
from dashboard.data.progress import is_silent
from db.models import Run
from db.runs.fields import NEEDS_A_PERSON
from lossguard.vocabulary.states import IncidentState, InterventionState, RunState

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


def run_badge(run: Run, *others: str) -> None:
    """The state of a run, or since when it has been silent; `others` are badges beside it, in Markdown."""
    text, help_text = _state(run)
    st.markdown(" ".join((text, *others)), width="content", help=help_text)


def _state(run: Run) -> tuple[str, str | None]:
    """The badge, and what it means."""
    now = time.time()
    if not is_silent(run, now):
        return badge_text(formatting.escape_markdown(run.state), *_look(run.state)), None
    since = clock.moment(run.last_report_at, clock.zone(st.context.timezone), now=now)
    if collector_watch.has_address() and collector_watch.outage() is not None:
        return badge_text(f"no news since {since}", "gray", ":material/cloud_off:"), NO_NEWS_HELP
    return badge_text(f"silent since {since}", "orange", ":material/signal_disconnected:"), SILENT_HELP


def badge_text(label: str, color: Color, icon: str) -> str:
    """A badge in Markdown, as is its label."""
    return f":{color}-badge[{icon} {label}]"


def _look(state: str) -> tuple[Color, str]:
    return BADGES.get(state, ("gray", ":material/circle:"))


def badge(state: str) -> None:
    color, icon = _look(state)
    st.badge(state, color=color, icon=icon)


def needs_a_person(run: Run, count: int) -> None:
    """A link to the incident that waits for a decision (the page chooses it); nothing where none does."""
    if count:
        text = NEEDS_A_PERSON if count == 1 else f"{NEEDS_A_PERSON} ({count})"
        label = badge_text(text, "orange", ":material/person_raised_hand:")
        st.page_link("views/incident/page.py", label=label, query_params={"run": run.id})
