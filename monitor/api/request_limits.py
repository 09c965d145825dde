"""Limits the size of bodies and the amount of concurrent work, so that the collector's memory is bounded.

A body is read here, before the application sees the request: in time, within its size, and within the number of values
that it can make. Only a complete request takes a place among those that are served. A report beyond the limits is
answered with 429 and Retry-After: the SDK keeps it in its spool and sends it again. An export lasts as long as its
client reads, so exports have a limit of their own. No client can use up a budget of concurrent work.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lossguard.vocabulary.protocol import API, RUN_ID_PATTERN
from monitor import problems
from monitor.problems import Problem
from monitor.settings import Settings

# Budgets of concurrent work

CLIENT_SHARE, PARTY_SHARE = 0.5, 0.75
"""The largest part of a budget for one token at one address; and for one token at all addresses, as for one address
with all tokens. Many trainers may share either, so both are large. They differ, so that there is still room for other
trainers behind the address of a hostile one, and for those elsewhere with the same token."""
RUN_SHARE = 1 / 16
"""The largest part of a budget for what writes one run. Its writes wait for each other, and each holds a thread and a
connection to the database meanwhile; a trainer sends one or two at a time."""


Shares = Sequence[tuple[tuple[str, ...], float]]


class Caller(NamedTuple):
    """Owner of the work: the name of the token, and the address."""

    principal: str
    address: str

    @classmethod
    def of(cls, scope: Scope) -> "Caller":
        """The client of a request after its authentication."""
        principal, address = scope.get("state", {}).get("principal"), scope.get("client")
        return cls("" if principal is None else principal.name, "" if address is None else address[0])

    @lru_cache(maxsize=1024)  # noqa: B019 - of values, not of objects that would be kept alive
    def shares(self) -> Shares:
        """The three that its work counts for, each with its largest part of a budget."""
        token, address = ("token", self.principal), ("address", self.address)
        return [(token + address, CLIENT_SHARE), (token, PARTY_SHARE), (address, PARTY_SHARE)]


class Budget:
    """A maximum amount at once; one request always has room. Lives in the event loop's thread: it needs no lock."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.taken = 0
        self._taken_by: dict[tuple[str, ...], int] = {}

    def reserve(self, client: Caller, *, run_id: str | None = None) -> "Reservation":
        """A context in which so much may be taken for the client, and which gives it back at its end.

        `run_id`: the run that is written.
        """
        shares = client.shares()
        return Reservation(self, shares if run_id is None else (*shares, (("run", run_id), RUN_SHARE)))

    def take(self, shares: Shares, amount: int, held: int) -> None:
        """Take `amount` for a request that has `held` already. Raises Problem 429 if there is no room."""
        is_alone = self.taken == held
        if amount and not is_alone and not self._has_room(shares, amount):
            detail = (
                "the collector is at its limit of concurrent work; nothing was stored, so send it again after a second"
            )
            raise Problem(429, "the collector is busy", detail, [], problems.RETRY)
        self.add(shares, amount)

    def _has_room(self, shares: Shares, amount: int) -> bool:
        if self.taken + amount > self._limit:
            return False
        taken = [(self._taken_by.get(holder, 0), share * self._limit) for holder, share in shares]
        return all(not before or before + amount <= most for before, most in taken)

    def add(self, shares: Shares, amount: int) -> None:
        """Count so much more, or less."""
        if not amount:
            return
        self.taken += amount
        for holder, _ in shares:
            left = self._taken_by.get(holder, 0) + amount
            if left:
                self._taken_by[holder] = left
            else:
                del self._taken_by[holder]


class Reservation:
    """The share of one request in a budget. Not a generator: every request enters three of these."""

    __slots__ = ("_budget", "_held", "_shares")

    def __init__(self, budget: Budget, shares: Shares) -> None:
        self._budget, self._shares, self._held = budget, shares, 0

    def __enter__(self) -> Callable[[int], None]:
        return self._take

    def __exit__(self, *error: object) -> None:
        self._budget.add(self._shares, -self._held)

    def _take(self, amount: int) -> None:
        self._budget.take(self._shares, amount, self._held)
        self._held += amount


# The limits of a request

UNLIMITED_PATHS = ("/healthz", "/metrics")
"""Paths without limits: a busy collector is healthy, and must be able to say that it is busy."""
EXPORT_PATH = re.compile(f"{API}/runs/[^/]+/export")
RUN_PATH = re.compile(f"{API}/runs/({RUN_ID_PATTERN})/.*")
STRUCTURE = b'{[,:"'
"""Bytes of structure: each stands for at most about 50 bytes of memory in a parsed body, so their number bounds it."""

MIN_ARRAY_BYTES = 16_384

Take = Callable[[int], None]


class RequestLimits:
    """ASGI middleware, behind the authentication."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self.requests = Budget(settings.max_requests_at_once)
        self.bytes = Budget(settings.max_bytes_at_once)
        self.values = Budget(settings.max_values_at_once)
        self.exports = Budget(settings.max_exports_at_once)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in UNLIMITED_PATHS:
            await self._app(scope, receive, send)
        elif scope["method"] == "GET" and EXPORT_PATH.fullmatch(scope["path"]):
            await self._export(scope, receive, send)
        else:
            await self._admit(scope, receive, send)

    async def _export(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.exports.reserve(Caller.of(scope)) as take:
            try:
                take(1)
            except Problem as problem:
                await problems.response_to(Request(scope), problem)(scope, receive, send)
                return
            await self._app(scope, receive, send)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = Caller.of(scope)
        with (
            self.bytes.reserve(client) as take_bytes,
            self.values.reserve(client) as take_values,
            self.requests.reserve(client, run_id=_written_run(scope)) as take_request,
        ):
            try:
                is_chunked = any(name == b"transfer-encoding" for name, _ in scope["headers"])
                has_body = is_chunked or _content_length(scope) > 0
                body = await self._body(scope, receive, take_bytes, take_values) if has_body else b""
                if body is None:  # the client has gone away
                    return
                take_request(1)
            except Problem as problem:
                await problems.response_to(Request(scope), problem)(scope, receive, send)
                return
            whole: Message = {"type": "http.request", "body": body, "more_body": False}
            await self._app(scope, replay(whole, receive) if has_body else receive, send)

    async def _body(self, scope: Scope, receive: Receive, take_bytes: Take, take_values: Take) -> bytes | None:
        """The whole body; None if the client went away. Raises Problem 408, 413 or 429."""
        settings, announced = self._settings, _content_length(scope)
        if announced > settings.max_report_bytes:
            raise problems.too_large(settings.max_report_bytes)
        take_bytes(announced)
        parts, size, num_values, is_complete = [], 0, 0, False
        start = asyncio.get_running_loop().time()
        while not is_complete:
            message = await self._receive_in_time(receive, start, size)
            if message["type"] == "http.disconnect":
                return None
            part = message.get("body", b"")
            is_complete = not message.get("more_body", False)
            parts.append(part)
            size += len(part)
            if size > settings.max_report_bytes:
                raise problems.too_large(settings.max_report_bytes)
            take_bytes(max(size - max(announced, size - len(part)), 0))  # beyond what was announced
            new_values = _num_values(part)
            num_values += new_values
            if num_values > settings.max_values:
                raise problems.too_large(settings.max_values, "values", "LOSSGUARD_MAX_VALUES")
            take_values(new_values)
        return b"".join(parts)

    async def _receive_in_time(self, receive: Receive, start: float, size: int) -> Message:
        """The next part of a body, of which `size` bytes have come since `start`. A client may neither fall silent nor
        send a byte now and then: what it holds is held from others."""
        settings, now = self._settings, asyncio.get_running_loop().time()
        latest = min(now, start + size / settings.min_body_rate) + settings.body_timeout
        try:
            async with asyncio.timeout_at(latest):
                return await receive()
        except TimeoutError:
            late = f"stopped for {settings.body_timeout:.0f} s, or was slower than {settings.min_body_rate} bytes/s"
            detail = f"the body {late}; nothing was stored, so send it again"
            raise Problem(408, "the body did not arrive in time", detail, ["body"]) from None


def _num_values(part: bytes) -> int:
    """The bytes of STRUCTURE. Of a large part they are counted as an array, in a third of the time."""
    if len(part) < MIN_ARRAY_BYTES:
        return len(part) - len(part.translate(None, STRUCTURE))
    numbers = np.frombuffer(part, dtype=np.uint8)
    return sum(int(np.count_nonzero(numbers == byte)) for byte in STRUCTURE)


def replay(message: Message, receive: Receive) -> Receive:
    """Return a `receive` that returns the message, which was received already, first."""
    messages = [message]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again


def _written_run(scope: Scope) -> str | None:
    match = None if scope["method"] == "GET" else RUN_PATH.fullmatch(scope["path"])
    return None if match is None else match[1]


def _content_length(scope: Scope) -> int:
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    return int(lengths[0]) if lengths and lengths[0].isdigit() else 0
