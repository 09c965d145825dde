"""Who asks, and whether they may: bearer tokens with scopes.

LOSSGUARD_TOKEN is good for everything; the tokens of the store (`python -m monitor token`) are good for their scopes
and, when bound to one, for their project alone. What another project has does not exist for them. With neither kind of
token the collector is open, listens on loopback only, and is open to this machine's programs, not to the pages of other
sites in its browser.
"""

import hmac
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

import sqlalchemy as sa
from fastapi import Depends, Request
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from db import access
from db.access import Scope
from lossguard.addresses import host_of, is_loopback
from monitor.problems import Problem, unknown

log = logging.getLogger(__name__)

WINDOW, TRIES = 60.0, 20
"""Seconds, and the failed attempts of one address within them; further ones are answered with 429 and not logged. A
good token always passes: many trainers may share an address."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks."""

    name: str
    scopes: frozenset[Scope]
    project: str | None = None


EVERYTHING = frozenset(Scope)
ANYBODY = Principal("anybody", EVERYTHING)
OWNER = Principal("LOSSGUARD_TOKEN", EVERYTHING)


class Attempts:
    """Failed attempts by address. Forgets all of them every WINDOW, so that it cannot grow for ever."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._since = clock, clock()
        self._failed: Counter[str] = Counter()

    def fail(self, address: str) -> bool:
        """Count one more: whether it is still within what is allowed."""
        if self._clock() - self._since > WINDOW or len(self._failed) > 10_000:
            self._failed.clear()
            self._since = self._clock()
        self._failed[address] += 1
        return self._failed[address] <= TRIES


async def _principal(request: Request) -> Principal:
    """Who asks; raises Problem 401, or 429 after too many failed attempts."""
    given = request.headers.get("authorization", "")
    kind, _, token = given.partition(" ")
    presented = token.strip() if kind.lower() == "bearer" else ""
    owner = request.app.state.settings.token
    if owner is not None and hmac.compare_digest(presented.encode(), owner.get_secret_value().encode()):
        return OWNER
    found = await run_in_threadpool(_stored, request.app.state.engine, presented, may_be_open=owner is None)
    if found is None:
        raise _refused(request, "wrong token" if given else "no token")
    if found is ANYBODY and not _is_local(request):
        log.warning("refused: not asked as this machine's own, for %s %s", request.method, request.url.path)
        detail = (
            "without a token the collector answers this machine alone, asked for as localhost or 127.0.0.1, "
            "and no page of another site; ask so, or set LOSSGUARD_TOKEN"
        )
        raise Problem(403, "not allowed", detail, ["header", "host"])
    return found


def _is_local(request: Request) -> bool:
    """Whether the request was meant for this machine, and no page from elsewhere had the browser make it.

    A page elsewhere names itself in Origin; one whose name was made to resolve to here asks for that name in Host.
    """
    asked, origin = f"//{request.headers.get('host', '')}", request.headers.get("origin")
    return all(is_loopback(host_of(url)) for url in (asked, origin) if url is not None)


def _stored(engine: sa.Engine, presented: str, *, may_be_open: bool) -> Principal | None:
    """Whose token of the store this is."""
    with Session(engine) as session:  # every report comes by here, and `reading` would make it a tenth dearer
        if presented and (row := access.token_with(session, digest=access.digest(presented))) is not None:
            return Principal(row.name, frozenset(map(Scope, row.scopes)), row.project)
        return ANYBODY if may_be_open and not access.any_token(session) else None


def _refused(request: Request, why: str) -> Problem:
    address = request.client.host if request.client is not None else "unknown"
    if not request.app.state.attempts.fail(address):
        detail = f"more than {TRIES} failed attempts in {WINDOW:.0f} s; mend the token, then wait"
        return Problem(429, "too many failed attempts", detail, ["header", "authorization"], {"Retry-After": "60"})
    log.warning("refused: %s from %s for %s %s", why, address, request.method, request.url.path)
    detail = "send a token of this collector: Authorization: Bearer <LOSSGUARD_TOKEN>"
    return Problem(401, "not authorized", detail, ["header", "authorization"], {"WWW-Authenticate": "Bearer"})


def needs(scope: Scope) -> Callable[..., Awaitable[Principal]]:
    """A dependency: the one who asks, if they have `scope` and the run in the path is theirs to see."""

    async def allowed(request: Request, principal: Annotated[Principal, Depends(_principal)]) -> Principal:
        if scope not in principal.scopes:
            log.warning("refused: %r lacks %s for %s %s", principal.name, scope, request.method, request.url.path)
            scopes = ", ".join(sorted(principal.scopes))
            detail = f"the token {principal.name!r} has the scopes {scopes}; this needs {scope}"
            raise Problem(403, "not allowed", detail, ["header", "authorization"])
        if principal.project is not None:
            await run_in_threadpool(_check_project, request, principal.project)
        return principal

    allowed.scope = scope  # type: ignore[attr-defined]  # a test reads it from every route
    return allowed


def _check_project(request: Request, project: str) -> None:
    with Session(request.app.state.engine) as session:
        for name, what in (("run_id", "run"), ("order_id", "order"), ("intervention_id", "intervention")):
            key = request.path_params.get(name)
            if key is not None and _project(session, what, key) != project:
                raise unknown(what, key)


def _project(session: Session, what: str, key: str) -> str | None:
    if what == "run":
        return access.project_of(session, run_id=key)
    number = int(key) if key.isdecimal() and len(key) < 10 else 0
    if what == "order":
        return access.project_of(session, order=number)
    return access.project_of(session, intervention=number)


def check_registration(session: Session, who: Principal, *, run_id: str, project: str) -> None:
    """Raise Problem 403 when the run would be, or is, another project's than the token's."""
    if who.project is None:
        return
    if project != who.project or access.project_of(session, run_id=run_id) not in (None, who.project):
        detail = f"the token {who.name!r} is good for the project {who.project!r} alone"
        raise Problem(403, "not allowed", detail, ["body", "project"])


Reporter = Annotated[Principal, Depends(needs(Scope.REPORT))]
Reader = Annotated[Principal, Depends(needs(Scope.READ))]
Operator = Annotated[Principal, Depends(needs(Scope.OPERATE))]
