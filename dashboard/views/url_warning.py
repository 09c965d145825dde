"""Says once what a link asks for and the page cannot show, instead of leaving it out without a word."""

import streamlit as st

from dashboard import formatting

SAID = "url_warnings"
"""Key in the session: warnings that were shown."""
MAX_LETTERS = 60


def warn(parameter: str, text: str, remedy: str) -> None:
    """A message that stays until the viewer closes it: `parameter` has the value `text`; `remedy` is a sentence."""
    said: set[tuple[str, str]] = st.session_state.setdefault(SAID, set())
    if (parameter, text) in said:
        return
    said.add((parameter, text))
    value = formatting.escape_markdown(text if len(text) <= MAX_LETTERS else f"{text[:MAX_LETTERS]} ..")
    message = f"The link has {parameter}={value}, which is not valid. {remedy}"
    st.toast(message, icon=":material/link_off:", duration="infinite")
