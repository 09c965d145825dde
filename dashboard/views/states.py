"""Badges of states: every state has one colour and one icon on all pages."""

from typing import Literal

import streamlit as st

from dashboard import formatting
from db.models import Run
from db.run_states import NEEDS_A_PERSON
from db.runs.verdicts import Verdict
from lossguard.vocabulary.states import IncidentState, InterventionState, RunVerdict

Color = Literal["red", "orange", "blue", "green", "gray"]

BADGES: dict[str, tuple[Color, str]] = {
    InterventionState.FAILED: ("red", ":material/error:"),
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


VERDICTS: dict[RunVerdict, tuple[Color, str]] = {
    RunVerdict.HEALTHY: ("green", ":material/check_circle:"),
    RunVerdict.RECOVERING: ("orange", ":material/healing:"),
    RunVerdict.DIVERGED: ("red", ":material/trending_up:"),
    RunVerdict.HELD: ("red", ":material/front_hand:"),
    RunVerdict.STALLED: ("red", ":material/hourglass_disabled:"),
    RunVerdict.UNWATCHED: ("orange", ":material/cloud_off:"),
    RunVerdict.ENDED: ("gray", ":material/flag:"),
    RunVerdict.ENDED_OPEN: ("red", ":material/flag:"),
}


def verdict(found: Verdict, *others: str) -> None:
    """The sentence of a run's verdict in its colour; `others` are badges beside it, in Markdown."""
    st.markdown(" ".join((verdict_text(found, found.sentence), *others)), width="content")


def verdict_text(found: Verdict, text: str) -> str:
    """The sentence or the headline of a verdict in Markdown."""
    color, icon = VERDICTS[found.verdict]
    head, colon, rest = map(formatting.escape_markdown_verbatim, text.partition(":"))
    return f":{color}[{icon} **{head}**{colon}{rest}]"


def badge_text(label: str, color: Color, icon: str) -> str:
    """A badge in Markdown, as is its label."""
    return f":{color}-badge[{icon} {label}]"


def badge(state: str, text: str = "") -> None:
    """`text`: in place of the state, in its colour."""
    color, icon = BADGES.get(state, ("gray", ":material/circle:"))
    st.badge(text or state, color=color, icon=icon)


def needs_a_person(run: Run, count: int) -> None:
    """A link to the incident that waits for a decision (the page chooses it); nothing where none does."""
    if count:
        text = NEEDS_A_PERSON if count == 1 else f"{NEEDS_A_PERSON} ({count})"
        label = badge_text(text, "orange", ":material/person_raised_hand:")
        st.page_link("views/incident/page.py", label=label, query_params={"run": run.id})
