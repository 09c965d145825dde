"""The viewer of a page: nobody in particular without a login; with one, a page is shown to those who may read."""

import os
from functools import cache
from pathlib import Path

import streamlit as st

from dashboard import formatting, login
from dashboard.login import LOGIN_VARIABLE, Login, Right, Viewer


@cache
def _login(path: str) -> Login:
    return login.read(Path(path))


def has_login() -> bool:
    """True if viewers log in."""
    return bool(os.environ.get(LOGIN_VARIABLE))


def viewer() -> Viewer | None:
    """The person who has logged in; None without a login, and for somebody who has not."""
    if not has_login() or not st.user.get("is_logged_in"):
        return None
    return login.viewer(_login(os.environ[LOGIN_VARIABLE]), st.user.to_dict())


def has_expired() -> bool:
    """True if viewers log in, and the login of this one has ended."""
    person = viewer()
    return has_login() and (person is None or person.has_expired)


def require_reader() -> None:
    """Ask for a login, or refuse, and stop the script, unless the viewer may read; else show who it is."""
    if not has_login():
        return
    person = viewer()
    if person is None or person.has_expired:
        st.title("Lossguard")
        st.markdown("Log in to see the runs." if person is None else "Your login has expired.")
        st.button("Log in", on_click=st.login, type="primary", icon=":material/login:", key="log-in")
        st.stop()
    name = formatting.escape_markdown(person.name)
    if Right.READ not in person.rights:
        st.title("Lossguard")
        st.error(
            f"{name}: none of your groups may read here. Ask whoever runs this dashboard.", icon=":material/block:"
        )
        st.button("Log out", on_click=st.logout, icon=":material/logout:", key="log-out")
        st.stop()
    with st.container(horizontal=True, horizontal_alignment="right", vertical_alignment="center"):
        st.caption(name, width="content")
        st.button("Log out", on_click=st.logout, icon=":material/logout:", key="log-out", type="tertiary")
