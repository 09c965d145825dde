"""The connections of the collector: how many there may be, and how long each may wait.

All of this comes before a token is known. Headers must be complete in time and of a bounded size, an answer must be
read, and one address cannot have all connections. When there is no room for a new one, the connection that has waited
longest for a request makes room: a trainer's request follows at once, so it is not the one. What is closed is counted
in the log, at most once in ten seconds.
"""

import asyncio
import logging
import sys
from collections import Counter
from ipaddress import ip_address, ip_network
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from monitor.settings import Settings

log = logging.getLogger(__name__)

RESERVED_FILES = 128
"""Files besides the connections: the database, its journal, modules, the log."""
MAX_HEADER_BYTES, HEADER_OVERHEAD = 65_536, 64
"""Maximum bytes of the headers of one request; every header counts as `HEADER_OVERHEAD` more."""
MAX_PIPELINED = 16
"""Requests that a connection may send before the first of them is answered."""
ANSWER_TIMEOUT = 60.0
"""Seconds for which a client may read nothing of an answer."""
SWEEP_SECONDS, LOG_SECONDS = 1.0, 10.0

LATE, UNREAD = "no complete headers in time", "an answer that was not read"
MADE_ROOM, FULL, TOO_MANY = "made room for another", "no room", "too many from one address"


class Connections:
    """Lives in the event loop's thread, so that it needs no lock."""

    def __init__(self, settings: Settings, *, limit: int | None = None) -> None:
        self._limit = settings.max_connections if limit is None else limit
        self._limit_per_address = settings.max_connections_per_address
        self._trusted = [ip_network(one.strip()) for one in settings.trusted_proxies.split(",")]
        self._address_of: dict[Connection, str] = {}
        self._num_of: Counter[str] = Counter()
        # When each began to wait: for its first request, for a further one, for its client to read. The oldest first.
        self._new: dict[Connection, float] = {}
        self._idle: dict[Connection, float] = {}
        self._unread: dict[Connection, float] = {}
        self._timeouts = (
            (self._new, settings.header_timeout, LATE),
            (self._idle, settings.header_timeout, LATE),
            (self._unread, ANSWER_TIMEOUT, UNREAD),
        )
        self._closed: Counter[str] = Counter()
        self._logged_at = 0.0
        self._sweep_is_due = False

    def __len__(self) -> int:
        return len(self._address_of)

    def add(self, connection: "Connection", address: str) -> bool:
        """True if there is room for the connection, which now waits for its first request."""
        if self._num_of[address] >= self._limit_per_address and not self._is_trusted(address):
            return self._refuse(TOO_MANY)
        if len(self) >= self._limit and not self._make_room():
            return self._refuse(FULL)
        self._address_of[connection] = address
        self._num_of[address] += 1
        self._wait(self._new, connection)
        return True

    def remove(self, connection: "Connection") -> None:
        """Remove a closed connection. It may not have been added."""
        address = self._address_of.pop(connection, None)
        if address is None:
            return
        self._num_of[address] -= 1
        if not self._num_of[address]:
            del self._num_of[address]
        for waiting, _, _ in self._timeouts:
            waiting.pop(connection, None)

    def has_request(self, connection: "Connection") -> None:
        """The headers of a request are complete."""
        self._new.pop(connection, None)
        self._idle.pop(connection, None)

    def is_idle(self, connection: "Connection") -> None:
        """The answer is complete: it waits for the rest of the body, if there is one, and for a further request."""
        self._wait(self._idle, connection)

    def stalls(self, connection: "Connection") -> None:
        self._wait(self._unread, connection)

    def flows(self, connection: "Connection") -> None:
        self._unread.pop(connection, None)

    def close(self, connection: "Connection", why: str) -> None:
        """Close it at once, but let a client that reads have its answer."""
        self._closed[why] += 1
        self.remove(connection)
        if why is UNREAD or not connection.transport.get_write_buffer_size():
            connection.transport.abort()
        else:
            connection.transport.close()

    def _wait(self, waiting: dict["Connection", float], connection: "Connection") -> None:
        if connection not in self._address_of:
            return
        waiting.pop(connection, None)  # to the end of the order
        waiting[connection] = connection.loop.time()
        self._plan_sweep(connection.loop)

    def _make_room(self) -> bool:
        for waiting in (self._new, self._idle):
            if waiting:
                self.close(next(iter(waiting)), MADE_ROOM)
                return True
        return False

    def _refuse(self, why: str) -> bool:
        self._closed[why] += 1
        return False

    def _is_trusted(self, address: str) -> bool:
        try:
            return any(ip_address(address) in network for network in self._trusted)
        except ValueError:
            return False

    def _plan_sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._sweep_is_due:
            self._sweep_is_due = True
            loop.call_later(SWEEP_SECONDS, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close those that have waited too long. Every dictionary is in the order of its times."""
        self._sweep_is_due, now = False, loop.time()
        for waiting, timeout, why in self._timeouts:
            while waiting and now - next(iter(waiting.values())) >= timeout:
                self.close(next(iter(waiting)), why)
        if self._closed and now - self._logged_at >= LOG_SECONDS:
            causes = ", ".join(f"{count}: {why}" for why, count in sorted(self._closed.items()))
            log.warning("closed connections (%s); %d are open", causes, len(self))
            self._closed.clear()
            self._logged_at = now
        if self._closed or any(waiting for waiting, _, _ in self._timeouts):
            self._plan_sweep(loop)


class Connection(HttpToolsProtocol):
    """One connection; uvicorn's protocol with the limits of `Connections`."""

    limits: Connections
    _head_bytes = 0
    """Received of a head that is not complete."""
    _header_bytes = 0
    """Size of its headers, as objects."""
    _is_in_body = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if not self.limits.add(self, self.client[0] if self.client is not None else ""):
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.limits.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._is_in_body:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > MAX_HEADER_BYTES and not self.transport.is_closing():
            self.send_400_response("The headers of the request are too long.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._header_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_body:  # trailers, of which a client could send as many as it likes
            return
        self._header_bytes += len(name) + len(value) + HEADER_OVERHEAD
        if self._header_bytes > MAX_HEADER_BYTES:
            raise ValueError("the headers are too long")  # httptools makes a parser error of it, and uvicorn a 400
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ValueError("too many requests at once")
        self._head_bytes, self._is_in_body = 0, True
        self.limits.has_request(self)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._head_bytes, self._is_in_body = 0, False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete:
            self.cycle.body = bytearray()  # what nobody has read
            self.limits.is_idle(self)
        else:  # the next request has come already, and is served now
            self.flow.pause_reading()  # else further ones gather for every answer

    def pause_writing(self) -> None:
        super().pause_writing()
        self.limits.stalls(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self.limits.flows(self)


def protocol(limits: Connections) -> type[Connection]:
    """The protocol class for uvicorn, whose connections share these limits."""
    return type("LimitedConnection", (Connection,), {"limits": limits})


def raise_file_limit(num_connections: int) -> int:
    """Raise the limit of open files for this many connections, as far as the system permits; return the limit."""
    if sys.platform == "win32":
        return num_connections
    import resource

    needed = num_connections + RESERVED_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed and (hard > soft or hard == resource.RLIM_INFINITY):
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft >= needed:
        return num_connections
    possible = max(soft - RESERVED_FILES, soft // 2)
    log.warning("the limit of %d open files permits %d connections; raise it with ulimit -n", soft, possible)
    return possible


def server_options(settings: Settings) -> dict[str, Any]:
    """Return the options of uvicorn for these limits; it takes no websockets, which would escape them."""
    limits = Connections(settings, limit=raise_file_limit(settings.max_connections))
    return {"http": protocol(limits), "ws": "none"}
