"""Actions of an operator on a run. The collector checks the token, performs the action and writes the audit trail.

A viewer may act with the dashboard's own LOSSGUARD_TOKEN only when both are on the same machine, or when the dashboard
was started with --operate. Otherwise every visitor of a public dashboard could act with the token's rights.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from lossguard import Client, CollectorError, ConfigurationError, Unreachable
from lossguard.client.answers import reason_of
from lossguard.vocabulary.protocol import MAX_PERSON, PERSON_HEADER
from lossguard.vocabulary.secrets import host_of, is_loopback

DEFAULT_COLLECTOR = "http://127.0.0.1:8000"
OPERATE_VARIABLE = "LOSSGUARD_DASHBOARD_OPERATE"
"""Environment variable: "1" lets every viewer act with the dashboard's token, "0" lets none."""
PROXY_HEADERS = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
TIMEOUT = 20.0
"""Seconds."""


class ActionFailed(Exception):
    """The collector did not confirm the action; the message tells the operator why."""


class TokenRequired(ActionFailed):
    """The action needs a token, or one with more rights."""


class NoAnswer(ActionFailed):
    """Raised if no collector answered."""


@dataclass(frozen=True, slots=True)
class OperatorAction:
    """A request to the collector, and the text around it."""

    label: str
    """Text of the button that confirms it; in lower case also the word that a person types to confirm."""
    question: str
    """Markdown: what the dialog says is about to happen."""
    success: str
    """The message when it was performed."""
    path: str
    """Below /api/v1."""
    method: str = "POST"
    body: Mapping[str, Any] = field(default_factory=dict)


def collector_url() -> str:
    return (os.environ.get("LOSSGUARD_URL") or DEFAULT_COLLECTOR).rstrip("/")


def own_token() -> str | None:
    """The dashboard's token, from its environment."""
    return os.environ.get("LOSSGUARD_TOKEN") or None


def may_use_own_token(listen_address: str | None, headers: Mapping[str, str], setting: str | None) -> bool:
    """True if a viewer may act with the dashboard's own token (or with none, if the collector requires none).

    `setting` is the value of OPERATE_VARIABLE. Unless it decides, the viewer must be on this machine: the dashboard
    listens on loopback, the Host header names loopback (which rules out DNS rebinding), and no proxy forwarded the
    request.
    """
    if setting in ("0", "1"):
        return setting == "1"
    names = {name.lower() for name in headers}
    host = next((value for name, value in headers.items() if name.lower() == "host"), "")
    return is_loopback(listen_address or "") and is_loopback(host_of(f"//{host}")) and names.isdisjoint(PROXY_HEADERS)


def perform(action: OperatorAction, token: str | None, person: str | None = None) -> dict[str, Any]:
    """Send the action to the collector and return its answer; `person`: who has logged in. Raises ActionFailed."""
    headers = {} if person is None else {PERSON_HEADER: quote(person[:MAX_PERSON])}
    try:
        with Client(collector_url(), token, timeout=TIMEOUT) as client:
            answer: dict[str, Any] = client.request(action.method, action.path, action.body, headers=headers)
            return answer
    except ConfigurationError as error:
        raise ActionFailed(f"LOSSGUARD_URL cannot be used: {error}. Nothing was changed.") from error
    except CollectorError as error:
        raise _failure(error, collector_url(), bool(token)) from error


def perform_all(
    actions: Sequence[OperatorAction], token: str | None, person: str | None = None
) -> list[tuple[OperatorAction, ActionFailed]]:
    """Perform each of these actions; those that failed, and why.

    The ones after an action that no collector answered are not tried. Raises ActionFailed when the only one fails, and
    when none was performed because of the token or because no collector answers.
    """
    failures: list[tuple[OperatorAction, ActionFailed]] = []
    for action in actions:
        if failures and isinstance(failures[-1][1], NoAnswer):
            failures.append((action, NoAnswer("It was not tried. Nothing was changed.")))
            continue
        try:
            perform(action, token, person)
        except ActionFailed as error:
            failures.append((action, error))
    for_all = len(actions) == 1 or (bool(failures) and isinstance(failures[0][1], TokenRequired | NoAnswer))
    if for_all and len(failures) == len(actions):
        raise failures[0][1]
    return failures


def _failure(error: CollectorError, url: str, with_token: bool) -> ActionFailed:
    detail = error.detail.rstrip(".")
    match error.status:
        case None:
            why = reason_of(error.__cause__)
            if isinstance(error, Unreachable) and error.may_have_arrived:
                return _unknown_result(url, why)
            return NoAnswer(f"No collector answers at {url} ({why}). Nothing was changed.")
        case 401:
            why = "does not know this token" if with_token else "requires a token"
            return TokenRequired(f"The collector {why}. Nothing was changed.")
        case 403:
            return TokenRequired(f"Not allowed: {detail}. Nothing was changed.")
        case 404:
            return ActionFailed(f"The collector at {url} answers: {detail or 'not found'}. Nothing was changed.")
        case 409:
            return ActionFailed(f"Too late, or not possible now: {detail}. Nothing was changed.")
        case 502 | 504:  # from a proxy in front of the collector
            return _unknown_result(url, str(error.status))
    if not detail:
        return ActionFailed(
            f"The server at {url} (status {error.status}) is not a Lossguard collector. Nothing was changed."
        )
    if error.status in (429, 503):
        return ActionFailed(f"The collector cannot do this now: {detail}. Nothing was changed; try again later.")
    return ActionFailed(f"The collector refused: {detail}. Nothing was changed.")


def _unknown_result(url: str, why: str) -> ActionFailed:
    return NoAnswer(
        f"{url} did not answer the request ({why}). It may have been performed: check before you try again."
    )
