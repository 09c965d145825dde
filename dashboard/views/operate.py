"""Deeds of a person: a button, a dialog that asks, and the collector that does it."""

import os
from dataclasses import replace

import streamlit as st

from dashboard import operator_actions
from dashboard.operator_actions import Deed

TOKEN, ASKED, SAID = "operator_token", "operator_asked", "operator_said"
"""In the session: the viewer's own token, which no URL and no store ever holds; that the collector wants one; what was
done, told after the dialog."""


def button(label: str, deed: Deed, *, key: str, icon: str, primary: bool = False) -> None:
    if st.button(label, key=key, icon=icon, type="primary" if primary else "secondary"):
        confirm(deed)


def tell() -> None:
    """Say what was done by the dialog that has just closed."""
    said = st.session_state.pop(SAID, None)
    if said is not None:
        st.toast(said, icon=":material/check:")


@st.dialog("Are you sure?")
def confirm(deed: Deed) -> None:
    ask(deed)


def ask(deed: Deed, *, reason: bool = False) -> None:
    """The question, the reason where one is wished, the token where one is needed, and the two answers.

    A form: what is typed goes with the press. A field that is sent when it is left can swallow the press that left it.
    """
    st.markdown(deed.question)
    with st.form("confirm", border=False, enter_to_submit=False):
        if reason:
            why = st.text_input("Reason, for the audit trail", key="confirm-reason", max_chars=500)
            deed = replace(deed, body={**deed.body, "reason": why.strip()})
        token = _token()
        with st.container(horizontal=True):
            yes = st.form_submit_button(deed.verb, type="primary", key="confirm-yes")
            no = st.form_submit_button("Cancel", key="confirm-no")
    if no:
        st.rerun()
    if yes:
        _do(deed, token)
    st.caption("The collector writes who did it to the audit trail.")


def _do(deed: Deed, token: str | None) -> None:
    if token is None and not _lends():
        st.error("Enter a token with the scope `operate`.", icon=":material/key:")
        return
    try:
        operator_actions.act(deed, token)
    except operator_actions.TokenWanted as wanted:
        st.session_state[ASKED] = True
        st.session_state.pop(TOKEN, None)
        st.error(f"{wanted} Enter a token with the scope `operate`, then press again.", icon=":material/key:")
    except operator_actions.NotDone as sentence:
        st.error(str(sentence), icon=":material/block:")
    else:
        if token != operator_actions.own_token() and token is not None:
            st.session_state[TOKEN] = token
        st.session_state[SAID] = deed.done
        st.rerun()


def _token() -> str | None:
    """The viewer's own token; the dashboard's where it is lent, as long as the collector takes it."""
    if _lends() and not st.session_state.get(ASKED) and TOKEN not in st.session_state:
        return operator_actions.own_token()
    given = st.text_input(
        "Token with the scope `operate`",
        value=st.session_state.get(TOKEN, ""),
        type="password",
        key="token-input",
        help="Make one with `python -m monitor token create NAME --scope operate`. It is kept for this tab alone.",
        autocomplete="off",
    )
    return (given or "").strip() or None


def _lends() -> bool:
    headers = {name: str(value) for name, value in st.context.headers.items()}
    return operator_actions.lends(st.get_option("server.address"), headers, os.environ.get(operator_actions.OPERATE))
