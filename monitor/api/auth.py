"""Authentication and authorization: bearer tokens with scopes.

LOSSGUARD_TOKEN has every scope; the tokens of the store (`python -m monitor token`) have the scopes that they were
created with, and may be bound to one project or run: then they get 404 for anything of another one. With neither kind
of token the collector is open, but listens on loopback only: programs on this machine may use it, pages of other sites
in a browser on this machine may not.

Who a client is, is known before a byte of its body is read; what it may do, the routes say.
"""

import asyncio
import hmac
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any
from urllib.parse import unquote

import sqlalchemy as sa
from fastapi import Depends, Request
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as RequestScope

from db.models import Run
from db.records import access
from db.records.access import Owner, Scope
from lossguard.vocabulary.protocol import MAX_PERSON, PERSON_HEADER, is_text
from lossguard.vocabulary.secrets import host_of, is_loopback
from monitor import problems
from monitor.problems import Problem, unknown

log = logging.getLogger(__name__)

WINDOW_SECONDS, MAX_FAILED_ATTEMPTS = 60.0, 20
"""Failed attempts of one address within the window. After them the address is held for as long again: every attempt is
answered with 429, unless it brings a token that the address has used before, because many trainers may share one."""
DELAY_SECONDS = 0.1
"""Wait before a failed attempt is answered. Attempts of one address wait one after the other."""
MAX_ADDRESSES, MAX_USED_TOKENS = 10_000, 10_000
"""Addresses with failed attempts, and pairs of address and token, that are remembered. The oldest are forgotten."""


@dataclass(frozen=True, slots=True)
class Principal:
    """The authenticated client."""

    name: str
    scopes: frozenset[Scope]
    project: str | None = None
    run: str | None = None
    person: str | None = None
    """The person for whom the token acts, as the client says."""

    @property
    def author(self) -> str:
        """Name in the audit trail."""
        return self.name if self.person is None else f"{self.person} (token {self.name})"

    @property
    def is_bound(self) -> bool:
        """True if the token permits one project only, or one run."""
        return self.project is not None or self.run is not None

    def covers(self, owner: Owner | None) -> bool:
        """True if the token permits what belongs to this project and run."""
        return owner is not None and self.project in (None, owner.project) and self.run in (None, owner.run)


EVERYTHING = frozenset(Scope)
ANYBODY = Principal("anybody", EVERYTHING)
OWNER = Principal("LOSSGUARD_TOKEN", EVERYTHING)


@dataclass(slots=True)
class _Address:
    window_start: float
    num_failed: int = 0
    held_until: float = -math.inf
    answered_at: float = -math.inf
    """Time at which the last failed attempt is answered."""


class FailedAttempts:
    """Failed attempts by address, and the tokens that each address has used with success. Its size is bounded."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, delay: float = DELAY_SECONDS) -> None:
        self._clock, self._delay = clock, delay
        self._addresses: OrderedDict[str, _Address] = OrderedDict()
        self._used: OrderedDict[tuple[str, str], None] = OrderedDict()

    def fail(self, address: str) -> float:
        """Count a failed attempt. Return the seconds after which it is answered."""
        now = self._clock()
        known = self._addresses.setdefault(address, _Address(now))
        self._addresses.move_to_end(address)
        if len(self._addresses) > MAX_ADDRESSES:
            self._addresses.popitem(last=False)
        if now - known.window_start > WINDOW_SECONDS:
            known.window_start, known.num_failed = now, 0
        known.num_failed += 1
        if known.num_failed >= MAX_FAILED_ATTEMPTS:
            known.held_until = now + WINDOW_SECONDS
        known.answered_at = max(now, known.answered_at) + self._delay
        return known.answered_at - now

    def is_held(self, address: str, token: str) -> bool:
        """True if attempts of this address are refused unseen, and it has not used this token before."""
        known = self._addresses.get(address)
        if known is None or self._clock() >= known.held_until:
            return False
        return (address, access.digest(token)) not in self._used

    def succeed(self, address: str, token: str) -> None:
        """Remember that the address has used this token."""
        self._used[address, access.digest(token)] = None
        if len(self._used) > MAX_USED_TOKENS:
            self._used.popitem(last=False)


OPEN_PATHS = ("/healthz",)


class Authentication:
    """ASGI middleware: refuses a request without a valid token before its body is read, and stores the principal of
    others in `request.state.principal`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: RequestScope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            request = Request(scope)
            try:
                request.state.principal = _for_person(request, await _authenticate(request))
            except problems.ERRORS as error:
                await problems.response_to(request, error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


async def _principal(request: Request) -> Principal:
    principal: Principal = request.state.principal
    return principal


async def _authenticate(request: Request) -> Principal:
    """The client of a request. Raises Problem 401 or 403, or 429 after too many failed attempts."""
    given = request.headers.get("authorization", "")
    kind, _, token = given.partition(" ")
    presented = token.strip() if kind.lower() == "bearer" else ""
    attempts: FailedAttempts = request.app.state.collector.failed_attempts
    address, place = request.client.host if request.client is not None else "unknown", ["header", "authorization"]
    if attempts.is_held(address, presented):
        failed = f"{MAX_FAILED_ATTEMPTS} attempts of this address failed within {WINDOW_SECONDS:.0f} s"
        detail = f"{failed}; correct the token, then wait {WINDOW_SECONDS:.0f} s"
        raise Problem(429, "too many failed attempts", detail, place, {"Retry-After": f"{WINDOW_SECONDS:.0f}"})
    principal = await _principal_of(request, presented)
    if principal is None:
        await asyncio.sleep(attempts.fail(address))
        reason = "wrong token" if given else "no token"
        log.warning("refused: %s from %s for %s %s", reason, address, request.method, request.url.path)
        detail = "send a token of this collector: Authorization: Bearer <LOSSGUARD_TOKEN>"
        raise Problem(401, "not authorized", detail, place, {"WWW-Authenticate": "Bearer"})
    if presented:
        attempts.succeed(address, presented)
    return principal


async def _principal_of(request: Request, presented: str) -> Principal | None:
    """The client that presents a token; None for a wrong one. Raises Problem 403."""
    collector = request.app.state.collector
    owner = collector.settings.token
    if owner is not None and hmac.compare_digest(presented.encode(), owner.get_secret_value().encode()):
        return OWNER
    principal = None
    if presented or not collector.needs_token:
        principal = await run_in_threadpool(_stored_principal, collector.engine, presented, may_be_open=owner is None)
        if principal is not ANYBODY:
            collector.needs_token = True  # for good, so that a request without a token costs no further look-up
    if principal is ANYBODY and not _is_local(request):
        log.warning("refused: not a request for this machine itself, for %s %s", request.method, request.url.path)
        detail = (
            "without a token the collector only answers requests from this machine to localhost or 127.0.0.1, "
            "and none from pages of other sites; use such an address, or set LOSSGUARD_TOKEN"
        )
        raise Problem(403, "not allowed", detail, ["header", "host"])
    return principal


def _for_person(request: Request, principal: Principal) -> Principal:
    """The principal with the person that the request names. Raises Problem 422 for what is no name."""
    given = request.headers.get(PERSON_HEADER)
    if given is None or Scope.OPERATE not in principal.scopes:
        return principal
    try:
        person = unquote(given, errors="strict")
    except UnicodeDecodeError:
        person = ""
    if not is_text(person, MAX_PERSON) or not person.strip() or not person.isprintable():
        detail = f"{PERSON_HEADER} must be a name of 1 to {MAX_PERSON} printable characters, percent-encoded UTF-8"
        raise Problem(422, "the request is malformed", detail, ["header", PERSON_HEADER.lower()])
    return replace(principal, person=person)


def _is_local(request: Request) -> bool:
    """True if the request is addressed to this machine, and not made by a page of another site in the browser.

    A page of another site has its own name in Origin, and after DNS rebinding also in Host.
    """
    host, origin = f"//{request.headers.get('host', '')}", request.headers.get("origin")
    return all(is_loopback(host_of(url)) for url in (host, origin) if url is not None)


def _stored_principal(engine: sa.Engine, presented: str, *, may_be_open: bool) -> Principal | None:
    """The owner of this token in the store; without any token, anybody if `may_be_open`."""
    with Session(engine) as session:  # not `reading`, which would make every report 10% more expensive
        if presented and (row := access.token_with(session, digest=access.digest(presented))) is not None:
            return Principal(row.name, frozenset(map(Scope, row.scopes)), row.project, row.run)
        return ANYBODY if may_be_open and not access.any_token(session) else None


def needs(scope: Scope) -> Callable[..., Awaitable[Principal]]:
    """A dependency: the client, if its token has `scope` and covers the run in the path."""

    async def allowed(request: Request, principal: Annotated[Principal, Depends(_principal)]) -> Principal:
        if scope not in principal.scopes:
            log.warning("refused: token %r lacks %s for %s %s", principal.name, scope, request.method, request.url.path)
            scopes = ", ".join(sorted(principal.scopes))
            detail = f"the token {principal.name!r} has the scopes {scopes}; this request needs {scope}"
            raise Problem(403, "not allowed", detail, ["header", "authorization"])
        if principal.is_bound:
            await run_in_threadpool(_check_owner, request, principal)
        return principal

    return allowed


def _check_owner(request: Request, who: Principal) -> None:
    """Raise Problem 404 if the token does not cover the run, order or intervention in the path."""
    with Session(request.app.state.collector.engine) as session:
        for what in ("run", "order", "intervention"):
            key = request.path_params.get(f"{what}_id")
            if key is None:
                continue
            number = int(key) if key.isdecimal() and len(key) < 10 else 0  # 0: no row has it
            named: dict[str, Any] = {"run_id": key} if what == "run" else {what: number}
            if not who.covers(access.owner_of(session, **named)):
                raise unknown(what, key)


def covers_run(who: Principal, run: Run) -> bool:
    return who.covers(Owner(run.project, run.id))


def check_run(engine: sa.Engine, who: Principal, run_id: str) -> None:
    """Raise Problem 404 if the token does not cover a run that the body names."""
    with Session(engine) as session:
        if not who.covers(access.owner_of(session, run_id=run_id)):
            raise unknown("run", run_id)


def check_registration(who: Principal, *, run_id: str, project: str) -> None:
    """Raise Problem 403 if the run would be in another project than the token's, or is another run than the token's."""
    if who.project not in (None, project):
        raise bound(who, f"the project {who.project!r}", ["body", "project"])
    if who.run not in (None, run_id):
        raise bound(who, f"the run {who.run!r}", ["body", "id"])


def bound(who: Principal, to: str, where: Sequence[str] = ()) -> Problem:
    """403: the token is bound to something else."""
    return Problem(403, "not allowed", f"the token {who.name!r} is valid for {to} only", where)


def check_policy_of(who: Principal, project: str | None) -> None:
    """Raise Problem 403 unless the token covers all of the project; None: all projects."""
    if project is None or who.run is not None:
        check_unbound(who, "the policy of the collector" if project is None else "a project")
    elif who.project not in (None, project):
        raise bound(who, f"the project {who.project!r}", ["query", "project"])


def check_unbound(who: Principal, what: str) -> None:
    """Raise Problem 403 if the token is bound: `what` covers all projects."""
    if who.is_bound:
        to = "one project" if who.run is None else "one run"
        raise Problem(403, "not allowed", f"{what} covers all projects; this token is bound to {to}")


Client = Annotated[Principal, Depends(_principal)]
"""Whoever has a valid token, whatever its scopes."""
Reporter = Annotated[Principal, Depends(needs(Scope.REPORT))]
Reader = Annotated[Principal, Depends(needs(Scope.READ))]
Operator = Annotated[Principal, Depends(needs(Scope.OPERATE))]
