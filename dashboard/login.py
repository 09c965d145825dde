"""Login of viewers with OpenID Connect, and the rights of their groups.

Without a login file the dashboard has no login, and whoever reaches it reads. With one (`--login FILE`), Streamlit's
own login (`st.login`) asks the provider, and the file says which scope each group has. Pages ask for the login by
themselves (`dashboard.views.frame`); `LoginRequired` asks for it where figures, values and files are served.

    [auth]                                    # what Streamlit needs
    redirect_uri = "https://lossguard.example.org/oauth2callback"
    cookie_secret = "..."                     # python -c "import secrets; print(secrets.token_hex(32))"
    client_id = "lossguard"
    client_secret = "..."
    server_metadata_url = "https://login.example.org/.well-known/openid-configuration"

    [login]
    groups_claim = "groups"                   # the claim of the ID token that holds the viewer's groups
    max_hours = 12                            # then the viewer logs in again, and groups are asked for anew

    [groups]
    "*" = "read"                              # everybody who can log in
    "ml-oncall" = "operate"
"""

import time
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from dashboard import streamlit_internals
from lossguard.vocabulary.secrets import host_of

LOGIN_VARIABLE = "LOSSGUARD_DASHBOARD_LOGIN"
"""Environment variable: the path of the login file; no login without it."""
OF_AUTH = ("redirect_uri", "cookie_secret", "client_id", "client_secret", "server_metadata_url")
MIN_SECRET = 32
"""Characters of the secret that signs the cookie: a guess must be hopeless."""
CALLBACK = "/oauth2callback"
EVERYBODY = "*"
MAX_NAME = 160


class Right(StrEnum):
    """Rights of a viewer. The names are those of the collector's scopes."""

    READ = "read"
    OPERATE = "operate"


class BadLogin(ValueError):
    """The login file cannot be used; the message says what, where and how to mend it."""


@dataclass(frozen=True, slots=True)
class Login:
    rights: Mapping[str, Right]
    """Rights by group."""
    groups_claim: str = "groups"
    max_hours: float = 12.0
    host: str = ""
    """Name of the dashboard, in the redirect URI."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """A person who has logged in."""

    name: str
    rights: frozenset[Right]
    expires_at: float
    """Unix seconds."""

    @property
    def has_expired(self) -> bool:
        return time.time() >= self.expires_at

    def may(self, right: Right) -> bool:
        return right in self.rights and not self.has_expired


def read(path: Path) -> Login:
    """The login file. Raises BadLogin."""
    if find_spec("authlib") is None:
        raise BadLogin("the login needs the package Authlib: pip install 'lossguard[dashboard]'")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadLogin(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise BadLogin(f"{path} is no TOML: {error}") from None
    auth: Any = content.get("auth")
    settings, groups = content.get("login", {}), content.get("groups")
    missing = [name for name in OF_AUTH if not isinstance(auth, dict) or not isinstance(auth.get(name), str)]
    if missing:
        raise BadLogin(f"{path}: [auth] needs {', '.join(missing)}")
    if len(auth["cookie_secret"]) < MIN_SECRET:
        raise BadLogin(f"{path}: cookie_secret must have {MIN_SECRET} characters or more: it must not be guessed")
    if not auth["redirect_uri"].endswith(CALLBACK):
        raise BadLogin(f"{path}: redirect_uri must be the dashboard's address with the path {CALLBACK}")
    if not isinstance(groups, dict) or not groups:
        raise BadLogin(f'{path}: [groups] must give groups a scope, such as "*" = "read"')
    for group, right in groups.items():
        if right not in tuple(Right):
            raise BadLogin(f"{path}: the scope of the group {group!r} must be read or operate, not {right!r:.80}")
    if not isinstance(settings, dict):
        raise BadLogin(f"{path}: [login] must be a table, not {settings!r:.80}")
    claim, hours = settings.get("groups_claim", "groups"), settings.get("max_hours", 12.0)
    if not isinstance(claim, str) or not claim:
        raise BadLogin(f"{path}: groups_claim must be the name of a claim, not {claim!r:.80}")
    if not isinstance(hours, int | float) or isinstance(hours, bool) or not 0 < hours <= 720:
        raise BadLogin(f"{path}: max_hours must be above 0 and at most 720, not {hours!r:.80}")
    rights = {group: Right(right) for group, right in groups.items()}
    return Login(rights, claim, float(hours), host_of(auth["redirect_uri"]))


OPEN_PATHS = ("/_stcore/health", "/_stcore/host-config", "/_stcore/stream")
"""Paths that a page needs before anybody has logged in; by the last one it asks for a login."""
DATA_PATHS = ("_stcore", "media", "component", "app", "lossguard")
"""First parts of the paths of what is no page: Streamlit's own, and ours."""


class LoginRequired:
    """ASGI middleware: answers a request for figures, values, files or components with 401 or 403, unless its cookie is
    that of a viewer who may read."""

    def __init__(self, app: ASGIApp, login: Login, open_paths: Collection[str] = ()) -> None:
        """`open_paths`: scripts, which hold no data."""
        self._app, self._login, self._open_paths = app, login, {*OPEN_PATHS, *open_paths}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope.get("path", "")  # the lifespan has none
        if path not in self._open_paths and path.strip("/").partition("/")[0] in DATA_PATHS:
            claims = streamlit_internals.claims_in(HTTPConnection(scope).cookies)
            person = None if claims is None else viewer(self._login, claims)
            if person is None or not person.may(Right.READ):
                is_known = person is not None and not person.has_expired
                text = "None of your groups may read here.\n" if is_known else "Log in on a page first.\n"
                answer = PlainTextResponse(text, 403 if is_known else 401, headers={"Cache-Control": "no-store"})
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


def viewer(login: Login, claims: Mapping[str, Any]) -> Viewer:
    """The person of these claims of an ID token (OpenID Connect Core, section 2), with the rights of their groups."""
    groups = claims.get(login.groups_claim)
    groups = [groups] if isinstance(groups, str) else groups if isinstance(groups, list | tuple) else []
    given = {login.rights[group] for group in (EVERYBODY, *groups) if isinstance(group, str) and group in login.rights}
    if Right.OPERATE in given:
        given.add(Right.READ)
    issued_at = claims.get("iat")
    if isinstance(issued_at, bool) or not isinstance(issued_at, int | float):
        issued_at = float("-inf")  # a login without its time has ended
    expires_at = issued_at + login.max_hours * 3600
    return Viewer(_name(claims), frozenset(given), expires_at)


def _name(claims: Mapping[str, Any]) -> str:
    """The name and the e-mail address; the provider's subject where it gives neither."""
    name, email = (str(claims.get(key) or "").strip() for key in ("name", "email"))
    text = f"{name} <{email}>" if name and email else name or email or str(claims.get("sub") or "somebody")
    return "".join(each for each in text if each.isprintable()).strip()[:MAX_NAME] or "somebody"
