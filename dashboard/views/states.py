"""How states look: the same colour and sign wherever one is shown."""

from typing import Literal

import streamlit as st

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


def badge(state: str) -> None:
    color, icon = LOOKS.get(state, ("gray", ":material/circle:"))
    st.badge(state, color=color, icon=icon)
