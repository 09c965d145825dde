"""Operator actions on a page: a button, a confirmation dialog, and the request to the collector."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import streamlit as st

from dashboard import formatting, operator_actions
from dashboard.data import collector_watch
from dashboard.login import Right
from dashboard.operator_actions import OperatorAction
from dashboard.views import frame
from dashboard.views.frame import show_live
from db.cli.command_engine import as_typed_here
from lossguard.vocabulary.protocol import MAX_SHORT_TEXT

TOKEN = "operator_token"
"""Key in the session: the viewer's own token. It is never written to the URL or to the store."""
TOKEN_REQUESTED = "operator_token_requested"
"""Key in the session: True if the collector rejected the dashboard's own token."""
SUCCESS = "operator_success"
"""Key in the session: the message to show once the dialog has closed."""
FAILURE = "operator_failure"
"""Key in the session: why the last press of an open dialog did nothing, and its icon."""
DIALOG_REFRESH_SECONDS = 2.0
MAX_FAILURES_NAMED = 20
"""Requests that a dialog names; it counts the others."""


Obsolete = Callable[[], str | None]
"""Function that says why an action has nothing to act on any more; None while it has."""


def button(
    label: str,
    action: OperatorAction,
    *,
    key: str,
    icon: str,
    primary: bool = False,
    obsolete: Obsolete | None = None,
) -> None:
    """A button that opens the action's confirmation dialog."""
    if st.button(label, key=key, icon=icon, type="primary" if primary else "secondary", **availability()):
        confirm(action, obsolete)


def availability() -> dict[str, Any]:
    """Arguments of a button: nothing can be decided while the collector does not answer."""
    is_down = collector_watch.is_down()
    return {"disabled": is_down, "help": "The collector does not answer." if is_down else None}


def show_success() -> None:
    """Show the message of the action that a dialog has just performed."""
    message = st.session_state.pop(SUCCESS, None)
    if message is not None:
        st.toast(message, icon=":material/check:")


def confirm(action: OperatorAction, obsolete: Obsolete | None = None) -> None:
    """Open the dialog. With `obsolete`, it looks every few seconds whether the action is still to be decided."""
    st.session_state.pop(FAILURE, None)
    _dialog(action, obsolete)


@frame.dialog("Are you sure?")
def _dialog(action: OperatorAction, obsolete: Obsolete | None) -> None:
    if obsolete is None:
        confirmation_form(action)
    else:
        show_live(lambda: form_until(obsolete, action), refresh_seconds=DIALOG_REFRESH_SECONDS)


def form_until(obsolete: Obsolete, action: OperatorAction, *, fields: Callable[[], Mapping[str, Any]] = dict) -> None:
    """The form, or why there is nothing to decide any more. A refresh keeps what the last press led to."""
    reason = obsolete()
    if reason is None:
        failure = st.session_state.pop(FAILURE, None)
        confirmation_form(action, fields=fields)
        if failure is not None and FAILURE not in st.session_state:
            _show_failure(*failure)
        return
    st.info(formatting.escape_markdown(reason), icon=":material/info:")
    if st.button("Close", key="confirm-close"):
        st.rerun()


def reason() -> dict[str, str]:
    return {"reason": st.text_input("Reason for the audit trail", key="confirm-reason", max_chars=500).strip()}


def confirmation_form(
    action: OperatorAction,
    *,
    fields: Callable[[], Mapping[str, Any]] = dict,
    word: str | None = None,
    requests: Callable[[OperatorAction], Sequence[OperatorAction]] = lambda action: [action],
) -> None:
    """The question, `fields` that add to the request's body, the token if one is needed, a word to type, two buttons.

    `word`: what a person types, by default the name of the action; nothing, if it is empty. `requests`: what is sent,
    where that is more than the action with its fields: one request for each of several runs.

    The word is typed because clicks alone can be stolen: a page that hides this one under its own, or a window that
    opens under the pointer, gets a person to click twice, but not to type the name of the action. An action
    that changes nothing of a run's training may go without.

    It is a form, which sends its fields together with the press of a button. Outside a form a text field is sent when
    it loses focus, and the rerun that follows can swallow the press.
    """
    st.markdown(action.question)
    with st.form("confirm", border=False, enter_to_submit=False):
        action = replace(action, body={**action.body, **fields()})
        token = _token()
        word = action.label.lower() if word is None else word
        label = f'To confirm, type "{formatting.escape_markdown(word)}"'
        typed = st.text_input(label, key="confirm-word", max_chars=MAX_SHORT_TEXT, autocomplete="off") if word else ""
        with st.container(horizontal=True):
            confirmed = st.form_submit_button(action.label, type="primary", key="confirm-yes")
            cancelled = st.form_submit_button("Cancel", key="confirm-no")
    if cancelled:
        st.rerun()
    st.caption("The collector records this action and its author in the audit trail.")
    if confirmed and typed.casefold().split() != word.casefold().split():
        asked = f'Type "{formatting.escape_markdown(word)}" into the field to confirm.'
        _show_failure(f"Nothing was changed. {asked}", ":material/keyboard:")
    elif confirmed:
        _perform(action, requests(action), token)


def _show_failure(text: str, icon: str) -> None:
    st.session_state[FAILURE] = (text, icon)
    st.error(text, icon=icon)


def _perform(action: OperatorAction, requests: Sequence[OperatorAction], token: str | None) -> None:
    person = frame.viewer()
    if frame.has_login() and token == operator_actions.own_token() and not _may_use_own_token():
        _show_failure("Your login has expired, or none of your groups may operate.", ":material/lock:")
        return
    if token is None and not _may_use_own_token():
        _show_failure("Enter a token with the scope `operate`.", ":material/key:")
        return
    if not requests:
        _show_failure("Nothing was changed: all is already as chosen.", ":material/block:")
        return
    try:
        with st.spinner(f"The collector is asked for {formatting.plural(len(requests), 'change')} ..", show_time=True):
            failures = operator_actions.perform_all(requests, token, None if person is None else person.name)
    except operator_actions.TokenRequired as error:
        st.session_state[TOKEN_REQUESTED] = True
        st.session_state.pop(TOKEN, None)
        _show_failure(f"{error} Enter a token with the scope `operate` and try again.", ":material/key:")
    except operator_actions.ActionFailed as error:
        _show_failure(str(error), ":material/block:")
    else:
        if token is not None and token != operator_actions.own_token():
            st.session_state[TOKEN] = token
        if not failures:
            st.session_state[SUCCESS] = action.success
            st.rerun()  # ends here
        done = f"{len(requests) - len(failures)} of {len(requests)} done. These were not:"
        reasons = [f"{request.label}: {error}" for request, error in failures]
        named = formatting.bullet_list(formatting.first_named(reasons, MAX_FAILURES_NAMED))
        st.error(f"{done}\n\n{named}", icon=":material/block:")


def _token() -> str | None:
    """The token that the viewer typed; the dashboard's own, if the viewer may use it and the collector accepts it."""
    if _may_use_own_token() and not st.session_state.get(TOKEN_REQUESTED) and TOKEN not in st.session_state:
        return operator_actions.own_token()
    typed = st.text_input(
        "Token with the scope `operate`",
        value=st.session_state.get(TOKEN, ""),
        type="password",
        key="token-input",
        help=as_typed_here(
            "Create one with `python -m monitor token create NAME --scope operate`. Only this browser tab keeps it."
        ),
        autocomplete="off",
    )
    return (typed or "").strip() or None


def _may_use_own_token() -> bool:
    if frame.has_login():
        person = frame.viewer()
        return person is not None and person.may(Right.OPERATE)
    headers = {name: str(value) for name, value in st.context.headers.items()}
    setting = os.environ.get(operator_actions.OPERATE_VARIABLE)
    return operator_actions.may_use_own_token(st.get_option("server.address"), headers, setting)
