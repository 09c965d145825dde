"""The browser's tab: its title says the verdict of the run and how many decisions wait; its icon shows that some do."""

from pathlib import Path

import streamlit as st

from dashboard import formatting
from dashboard.data.facts import RunFacts

APP = "Lossguard"
ICON, ICON_WAITING = (str(Path(__file__).parents[1] / name) for name in ("icon.svg", "icon-waiting.svg"))
PAGE = "tab_page"
"""Key in the session: title of the page."""
SHOWN = "tab_shown"
"""Key in the session: title and icon as they were last sent."""


def open_page(page: str) -> None:
    """A page begins: its name until it says more."""
    st.session_state[PAGE] = page
    _send(f"{page} - {APP}", ICON)


def show(facts: RunFacts | None = None, *, waiting: int = 0) -> None:
    """Name the run and its verdict, and how many decisions wait for a person; again when they have changed."""
    page = st.session_state.get(PAGE, APP)
    name = page if facts is None else f"{facts.verdict.headline} - {page} {formatting.run_title(facts.run)}"
    title = f"({waiting:,}) {name} - {APP}" if waiting else f"{name} - {APP}"
    icon = ICON_WAITING if waiting else ICON
    if st.session_state.get(SHOWN) != (title, icon):
        _send(title, icon)


def _send(title: str, icon: str) -> None:
    st.set_page_config(page_title=title, page_icon=icon)
    st.session_state[SHOWN] = (title, icon)
