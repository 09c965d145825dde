"""Filter of requests: the dashboard answers those to a name of its own, and none that another site's page makes.

The dashboard does not ask its viewers who they are, and a browser on this machine (or behind the proxy) runs pages of
other sites too. After DNS rebinding such a page names its own host in Host; across sites it names itself in Origin.
Both are refused before anything else sees the request: pages, files, figures, uploads, health and the websocket alike.
"""

import logging
import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from lossguard.vocabulary.secrets import host_of

log = logging.getLogger(__name__)

HOSTS_VARIABLE = "LOSSGUARD_DASHBOARD_HOSTS"
"""Environment variable: comma-separated host names under which viewers open the dashboard, besides localhost."""
NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,251}[a-z0-9])?")


class BadHostName(ValueError):
    """The message names the setting and the value."""


def parse_names(setting: str) -> frozenset[str]:
    """The names of a comma-separated list, in lower case. Raises BadHostName."""
    names = [name for part in setting.split(",") if (name := part.strip().lower())]
    for name in names:
        if not NAME.fullmatch(name):
            raise BadHostName(
                f"{HOSTS_VARIABLE}: {name[:80]!r} is not a host name; write names such as lossguard.example.org, "
                "without scheme, port or *, separated by commas"
            )
    return frozenset(names)


def is_allowed(headers: Headers, names: frozenset[str]) -> bool:
    """True if the request is for localhost, an IP address or one of `names`, and its Origin, if any, is that host.

    An IP address cannot be rebound: a browser sends it as Host only if the page was opened at this address.
    """
    hosts, origins = headers.getlist("host"), headers.getlist("origin")
    if len(hosts) != 1 or len(origins) > 1:
        return False
    host = host_of(f"//{hosts[0]}").rstrip(".")
    is_own = host == "localhost" or host in names or _is_address(host)
    return is_own and all(_place(origin) == hosts[0].lower() for origin in origins)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _place(origin: str) -> str:
    """Host and port of an Origin header, in lower case; empty where it cannot be parsed."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


class AllowedHosts:
    """ASGI middleware: answers every other request and handshake with 403 and one sentence."""

    def __init__(self, app: ASGIApp, names: frozenset[str]) -> None:
        self._app, self._names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or is_allowed(headers := Headers(scope=scope), self._names):
            await self._app(scope, receive, send)
            return
        log.warning("refused: host=%.100r origin=%.100r", headers.get("host"), headers.get("origin"))
        refusal = PlainTextResponse(
            "The dashboard answers only at localhost, at IP addresses and at the names in "
            f"{HOSTS_VARIABLE}, and only its own pages.\n",
            status_code=403,
        )
        await refusal(scope, receive, send)
