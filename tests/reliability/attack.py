"""Attacks on a collector while four honest trainers report to it.

    python -m tests.reliability.attack [ATTACK ...] [--seconds 5]

A real collector on loopback gets hostile requests for some seconds: bodies that are made to fill its memory, without a
token and with one; bodies and headers that never end; more connections than it may have files. Meanwhile honest
trainers, each with one connection, send a report every 100 ms and do not repeat those that fail, and /healthz is asked
over a new connection every 100 ms. For every attack one line of JSON: the share of honest requests that were served,
the slowest answer of /healthz, the peak of the collector's resident memory, and the seconds from the end of the attack
until both answer again. The exit code is 0 only if all of them are within the limits that docs/security.md names.
"""

import argparse
import contextlib
import json
import resource
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import urllib3

from db import access
from db.access import Scope
from db.engine import create_engine, writing
from lossguard.protocol import API
from tests.reliability.collector import NOW, CollectorProcess, reports
from tests.waiting import eventually

NUM_TRAINERS = 4
FULL_BODY = 16 * 2**20
"""Bytes of the largest body that the collector accepts."""
MIN_SERVED, MAX_HEALTH, MAX_MEMORY, MAX_RECOVERY = 0.95, 2.0, 488, 10.0
"""Share of honest requests; seconds; MiB (512 MB); seconds."""
NO_ANSWER = 5.0
"""Seconds after which a health check is given up."""
FILE_LIMIT = 1024


@dataclass(frozen=True, slots=True)
class Target:
    """A collector under attack, and the token that the attacker has: of scope report, for a project of its own."""

    port: int
    token: str

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=5.0)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attack did. `memory`: MiB of the collector at its peak; `slowest_health` and `recovery`: seconds."""

    attack: str
    requests: int
    served: float
    slowest_health: float
    memory: int
    recovery: float

    @property
    def is_good(self) -> bool:
        is_bounded = self.memory <= MAX_MEMORY and self.recovery <= MAX_RECOVERY
        return is_bounded and self.served >= MIN_SERVED and self.slowest_health <= MAX_HEALTH


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


class HonestTrainer:
    """Reports ten steps every 100 ms over one connection, and counts the answers."""

    def __init__(self, url: str, token: str, run_id: str) -> None:
        self._url, self._run_id, self._step = url, run_id, 0
        headers = {"authorization": f"Bearer {token}"}
        self._http = urllib3.PoolManager(retries=False, timeout=5.0, headers=headers)
        self.num_requests = self.num_served = 0
        assert self._post("/runs", {"id": run_id, "project": "p", "capabilities": [], "started_at": NOW})
        segment = {"key": "a", "fork_step": 0, "reason": "start", "opened_at": NOW}
        assert self._post(f"/runs/{run_id}/segments", segment)

    def _post(self, path: str, body: object) -> bool:
        try:
            return self._http.request("POST", f"{self._url}{API}{path}", json=body).status < 300
        except urllib3.exceptions.HTTPError:
            return False

    def report(self) -> bool:
        (body,) = reports(0, self._step, self._step + 10, 10, seed=1)
        is_served = self._post(f"/runs/{self._run_id}/reports", body)
        if is_served:
            self._step += 10
        self.num_requests += 1
        self.num_served += is_served
        return is_served

    def report_until(self, stopping: threading.Event) -> None:
        while not stopping.wait(0.1):
            self.report()


def is_healthy(url: str, timeout: float) -> bool:
    """Whether /healthz answers over a new connection."""
    try:
        with urllib3.PoolManager(retries=False, timeout=timeout) as http:
            return http.request("GET", f"{url}/healthz").status == 200
    except urllib3.exceptions.HTTPError:
        return False


class HealthCheck:
    """Asks /healthz every 100 ms, each time over a new connection; no answer within 5 s counts as one after 5 s."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.slowest = 0.0

    def ask_until(self, stopping: threading.Event) -> None:
        while not stopping.wait(0.1):
            began = time.perf_counter()
            answered = is_healthy(self._url, NO_ANSWER)
            self.slowest = max(self.slowest, time.perf_counter() - began if answered else NO_ANSWER)


def peak_memory(pid: int) -> int:
    """MiB of resident memory at the peak."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1024


def carry_out(name: str, collector: CollectorProcess, tokens: tuple[str, str], seconds: float) -> Outcome:
    """Attack a collector that is up. `tokens`: of the honest trainers and of the attacker."""
    target = Target(collector.port, tokens[1])
    HonestTrainer(collector.url, tokens[1], "mine")
    trainers = [HonestTrainer(collector.url, tokens[0], f"honest-{number}") for number in range(NUM_TRAINERS)]
    stopping, health = threading.Event(), HealthCheck(collector.url)
    threads = [threading.Thread(target=one.report_until, args=[stopping]) for one in trainers]
    threads.append(threading.Thread(target=health.ask_until, args=[stopping]))
    attack = Attack(target)
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    ATTACKS[name](attack, target)
    time.sleep(max(end - time.monotonic(), 0.0))
    stopping.set()
    for thread in threads:
        thread.join(30)
    ended = time.monotonic()
    attack.stop()
    answers = eventually(lambda: is_healthy(collector.url, 1.0) and all(one.report() for one in trainers[:1]), 30.0)
    recovery = time.monotonic() - ended if answers else float("inf")
    attack.close()
    num_requests = sum(one.num_requests for one in trainers)
    served = sum(one.num_served for one in trainers) / num_requests
    memory = peak_memory(collector.pid)
    return Outcome(name, num_requests, round(served, 3), round(health.slowest, 3), memory, round(recovery, 2))


@contextlib.contextmanager
def collector_with_tokens(folder: Path, **environment: str) -> Iterator[tuple[CollectorProcess, tuple[str, str]]]:
    """A collector with a file limit of 1,024 that is up, and two of its tokens of scope report."""
    url = f"sqlite:///{folder}/store.db"
    collector = CollectorProcess(url, folder / "log", **environment)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    collector.start()
    resource.prlimit(collector.pid, resource.RLIMIT_NOFILE, (FILE_LIMIT, FILE_LIMIT))
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4 * FILE_LIMIT), hard))  # the attacker's own connections
    try:
        collector.wait_until_up()
        engine = create_engine(url)
        with writing(engine) as session:
            tokens = [
                access.create_token(session, name=name, scopes=[Scope.REPORT], project=project, now=NOW)[1]
                for name, project in (("honest", None), ("attacker", "p"))
            ]
        engine.dispose()
        yield collector, (tokens[0], tokens[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        collector.kill()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", choices=[*ATTACKS, []], help=", ".join(ATTACKS))
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    outcomes = []
    for name in arguments.attacks or ATTACKS:
        with tempfile.TemporaryDirectory() as folder, collector_with_tokens(Path(folder)) as (collector, tokens):
            outcomes.append(carry_out(name, collector, tokens, arguments.seconds))
        print(json.dumps(asdict(outcomes[-1]) | {"good": outcomes[-1].is_good}), flush=True)
    return 0 if all(outcome.is_good for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
