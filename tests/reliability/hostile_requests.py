"""The attacks of `tests.reliability.attack`: hostile bodies, headers and connections."""

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass

from lossguard.vocabulary.protocol import API

FULL_BODY = 16 * 2**20
"""Bytes of the largest body that the collector accepts."""
FILE_LIMIT = 1024
"""Files that the attacked collector may have."""


@dataclass(frozen=True, slots=True)
class Target:
    """A collector under attack, and the token that the attacker has: of scope report, for a project of its own."""

    port: int
    token: str

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=5.0)


def head(length: int, token: str | None = None, path: str = f"{API}/runs") -> bytes:
    """The head of a POST with a JSON body of `length` bytes."""
    authorization = "" if token is None else f"Authorization: Bearer {token}\r\n"
    lines = f"Host: 127.0.0.1\r\n{authorization}Content-Type: application/json\r\nContent-Length: {length}\r\n"
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode()


def empty_objects(size: int) -> bytes:
    """[{},{},..] of `size` bytes: thirty times as large once it is parsed."""
    return b"[{}" + b",{}" * ((size - 4) // 3) + b"]"


def wrong_steps(size: int) -> bytes:
    """A report of which every step is wrong, so that there are millions of mistakes to describe."""
    return b'{"segment":0,"steps":[{}' + b",{}" * (size // 3 - 10) + b"]}"


def unknown_names(size: int) -> bytes:
    """A report with nothing but unknown fields."""
    return ("{" + ",".join(f'"{number:x}":0' for number in range(size // 11)) + "}").encode()


def short_numbers(size: int) -> bytes:
    """A report with one column of numbers as short as can be."""
    return b'{"segment":0,"steps":[],"times":[],"metrics":{"loss":[0.5' + b",0.5" * (size // 4 - 20) + b"]}}"


class Attack:
    """Threads that attack until they are stopped; connections that they leave open stay open until `close`."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._stopping = threading.Event()
        self._left_open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def repeat(self, step: Callable[[], None], *, threads: int = 4, every: float = 0.0) -> None:
        """Call `step` again and again in so many threads; what the collector refuses to take is no failure."""

        def loop() -> None:
            while not self._stopping.is_set():
                with contextlib.suppress(OSError):
                    step()
                self._stopping.wait(every)

        for _ in range(threads):
            thread = threading.Thread(target=loop, daemon=True)
            thread.start()
            self._threads.append(thread)

    def post(self, body: bytes, token: str | None, path: str = f"{API}/runs") -> None:
        with self._target.connect() as connection:
            connection.settimeout(20.0)
            connection.sendall(head(len(body), token, path) + body)
            connection.recv(1024)

    def hold(self, first: bytes, then: bytes = b"") -> None:
        """Send the first bytes over a connection that stays open, and one of the others every second."""
        connection = self._target.connect()
        connection.sendall(first)
        self.keep(connection)
        if then:
            with contextlib.suppress(OSError):  # closed by the collector: this connection is over, as it should be
                for position in range(len(then)):
                    if self._stopping.wait(1.0):
                        return
                    connection.sendall(then[position : position + 1])

    def keep(self, connection: socket.socket) -> None:
        """Leave it open after the attack."""
        self._left_open.append(connection)

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)

    def close(self) -> None:
        for connection in self._left_open:
            connection.close()


def bodies_without_token(attack: Attack, target: Target) -> None:
    """Four at a time, 16 MiB each, of [{},{},..]."""
    body = empty_objects(FULL_BODY)
    attack.repeat(lambda: attack.post(body, None))


def bodies_with_token(attack: Attack, target: Target) -> None:
    """The same with a token of scope report, and other bodies that grow when they are parsed or refused."""
    kinds = (empty_objects, wrong_steps, unknown_names, short_numbers)
    for make in kinds:
        body = make(FULL_BODY)
        attack.repeat(lambda body=body: attack.post(body, target.token, f"{API}/runs/mine/reports"), threads=1)  # type: ignore[misc]


def largest_accepted_bodies(attack: Attack, target: Target) -> None:
    """The same, each nearly as large as the limit on the number of values allows."""
    for make, size in ((empty_objects, 2_200_000), (short_numbers, 5_900_000), (unknown_names, 3_900_000)):
        body = make(size)
        attack.repeat(lambda body=body: attack.post(body, target.token, f"{API}/runs/mine/reports"), threads=2)  # type: ignore[misc]


def endless_bodies_without_token(attack: Attack, target: Target) -> None:
    """Four connections announce 16 MiB each and send a byte every second."""
    attack.repeat(lambda: attack.hold(head(FULL_BODY), b"[" * 1000))


def endless_bodies_with_token(attack: Attack, target: Target) -> None:
    """The same with a token, over sixteen connections."""
    attack.repeat(lambda: attack.hold(head(FULL_BODY, target.token), b"[" * 1000), threads=16)


def half_requests(attack: Attack, target: Target) -> None:
    """64 requests with a token whose bodies never come."""
    for _ in range(64):
        attack.hold(head(100, target.token))


def half_headers(attack: Attack, target: Target) -> None:
    """More connections than the collector may have files, with half a head each."""

    def half_head() -> None:
        attack.hold(b"GET /healthz HTTP/1.1\r\nHost: ")

    for _ in range(FILE_LIMIT + 76):
        with contextlib.suppress(OSError):
            half_head()


def endless_headers(attack: Attack, target: Target) -> None:
    """Headers without an end, as fast as the collector reads them."""

    def send() -> None:
        with target.connect() as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\n")
            for _ in range(1000):
                connection.sendall(b"a: b\r\n" * 20_000)

    attack.repeat(send)


def many_bodies(attack: Attack, target: Target) -> None:
    """Bodies without a token over many connections at once, of which the collector has to buffer the beginning."""
    first = head(FULL_BODY) + b"[" * 300_000

    def send() -> None:
        with contextlib.ExitStack() as opened:
            for _ in range(50):
                connection = opened.enter_context(target.connect())
                connection.setblocking(False)
                connection.send(first)

    attack.repeat(send, every=1.0)


def unread_answers(attack: Attack, target: Target) -> None:
    """Requests without a token, as many as the connections take, whose answers are never read."""
    requests = b"GET /api/v1/runs HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 1000

    def send() -> None:
        connection = target.connect()
        connection.settimeout(0.5)
        attack.keep(connection)
        for _ in range(1000):
            connection.sendall(requests)

    attack.repeat(send)


ATTACKS = {
    one.__name__: one
    for one in (
        bodies_without_token,
        bodies_with_token,
        largest_accepted_bodies,
        endless_bodies_without_token,
        endless_bodies_with_token,
        half_requests,
        half_headers,
        endless_headers,
        many_bodies,
        unread_answers,
    )
}
