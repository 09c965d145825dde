"""How states look: the same colour and sign wherever one is shown."""

import time
from typing import Literal

import streamlit as st

from dashboard import clock
from dashboard.data.progress import is_silent
from db.models import Run

SILENT = (
    "It did not say that it ended. It was killed, or it cannot reach the collector: then its spool holds the steps."
)
Color = Literal["red", "orange", "blue", "green", "gray"]

LOOKS: dict[str, tuple[Color, str]] = {
    "running": ("blue", ":material/play_arrow:"),
    "finished": ("green", ":material/check:"),
    "interrupted": ("gray", ":material/pause:"),
    "failed": ("red", ":material/error:"),
    "warning": ("orange", ":material/warning:"),
    "open": ("red", ":material/error:"),
    "treated": ("orange", ":material/healing:"),
    "closed": ("gray", ":material/check:"),
    "proposed": ("orange", ":material/person_raised_hand:"),
    "ordered": ("blue", ":material/send:"),
    "applied": ("blue", ":material/hourglass_top:"),
    "verified": ("green", ":material/verified:"),
    "recurred": ("red", ":material/replay:"),
}


def run_badge(run: Run) -> None:
    """The state of a run; of one that ought to report and does not, since when."""
    now = time.time()
    if is_silent(run, now):
        since = clock.moment(run.last_report_at, clock.zone(st.context.timezone), now=now)
        st.badge(f"silent since {since}", color="orange", icon=":material/signal_disconnected:", help=SILENT)
    else:
        badge(run.state)


def badge(state: str) -> None:
    color, icon = LOOKS.get(state, ("gray", ":material/circle:"))
    st.badge(state, color=color, icon=icon)
