"""What a person does about a run, through the collector: it checks who asks, acts, and writes the audit trail.

Who may press is decided by the token. The dashboard's own LOSSGUARD_TOKEN is lent to a viewer only when the dashboard
is this machine's alone, or was started with --operate: a page that many can see must not act for all of them.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, LocationValueError, NewConnectionError, SSLError

from lossguard.addresses import is_loopback
from lossguard.protocol import API

DEFAULT_COLLECTOR = "http://127.0.0.1:8000"
OPERATE = "LOSSGUARD_DASHBOARD_OPERATE"
"""Environment: "1" lends the dashboard's token to every viewer, "0" to none."""
FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
UNREACHED = (NewConnectionError, ConnectTimeoutError, SSLError, LocationValueError, UnicodeError)
"""Errors before anything was asked: with TLS, when the two could not agree on it."""
TIMEOUT = urllib3.Timeout(connect=3.0, read=20.0)


class NotDone(Exception):
    """The collector did not do it; the message says why in plain words."""


class TokenWanted(NotDone):
    """Another token could do it."""


@dataclass(frozen=True, slots=True)
class Deed:
    """One thing that a person can do."""

    verb: str
    """On the button."""
    question: str
    """What is about to happen, for the dialog. Markdown."""
    done: str
    method: str
    path: str
    """Below /api/v1."""
    body: Mapping[str, Any] = field(default_factory=dict)


def collector_url() -> str:
    return (os.environ.get("LOSSGUARD_URL") or DEFAULT_COLLECTOR).rstrip("/")


def own_token() -> str | None:
    """The dashboard's, from its environment."""
    return os.environ.get("LOSSGUARD_TOKEN") or None


def lends(listens_on: str | None, headers: Mapping[str, str], told: str | None) -> bool:
    """Whether a viewer may act with the dashboard's own token (or without one, where the collector asks for none).

    `told`: the value of OPERATE. Otherwise the viewer must sit at this machine: a dashboard on loopback, asked for by a
    loopback name (a page elsewhere cannot have its name resolve to here), and by no proxy that says so.
    """
    if told in ("0", "1"):
        return told == "1"
    names = {name.lower() for name in headers}
    host = next((value for name, value in headers.items() if name.lower() == "host"), "")
    return is_loopback(listens_on or "") and is_loopback(_without_port(host)) and names.isdisjoint(FORWARDED)


def _without_port(host: str) -> str:
    return host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]


def act(deed: Deed, token: str | None) -> dict[str, Any]:
    """Ask the collector to do it; its answer. Raises NotDone."""
    headers = {"user-agent": "lossguard-dashboard"} | ({"authorization": f"Bearer {token}"} if token else {})
    url = collector_url()
    try:
        answer = urllib3.request(
            deed.method, url + API + deed.path, json=dict(deed.body), headers=headers, timeout=TIMEOUT,
            retries=False, redirect=False,
        )  # fmt: skip
    except UNREACHED as error:
        raise NotDone(f"No collector answers at {url} ({type(error).__name__}). Nothing was changed.") from error
    except (HTTPError, OSError) as error:
        raise NotDone(_unsure(url, type(error).__name__)) from error
    told = _object(answer.data)
    if 200 <= answer.status < 300 and told is not None:
        return told
    raise _refusal(answer.status, told, url, bool(token))


def _unsure(url: str, why: str) -> str:
    return f"{url} was asked, and gave no answer ({why}). It may have been done: look before you press again."


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        told = json.loads(data)
    except ValueError:
        return None
    return told if isinstance(told, dict) else None


def _refusal(status: int, told: dict[str, Any] | None, url: str, with_token: bool) -> NotDone:
    detail = str((told or {}).get("detail", "")).rstrip(".")
    match status:
        case 401:
            why = "does not know this token" if with_token else "asks for a token"
            return TokenWanted(f"The collector {why}. Nothing was changed.")
        case 403:
            return TokenWanted(f"Not allowed: {detail}. Nothing was changed.")
        case 404:
            return NotDone(f"The collector at {url} does not know it: {detail or 'not found'}. Nothing was changed.")
        case 409:
            return NotDone(f"Too late or not possible now: {detail}. Nothing was changed.")
        case 502 | 504:  # a proxy's word about the collector behind it
            return NotDone(_unsure(url, str(status)))
    if told is None or not detail:
        return NotDone(f"What answers at {url} ({status}) is not a Lossguard collector. Nothing was changed.")
    if status in (429, 503):
        return NotDone(f"The collector cannot do it now: {detail}. Nothing was changed; try again.")
    return NotDone(f"The collector refused: {detail}. Nothing was changed.")
