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
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import urllib3

from db.records import access
from db.records.access import Scope
from db.store.engine import create_engine, writing
from lossguard.vocabulary.protocol import API
from tests.reliability.collector import NOW, CollectorProcess, reports
from tests.reliability.hostile_requests import ATTACKS, FILE_LIMIT, Attack, Target
from tests.waiting import eventually, pause

NUM_TRAINERS = 4
MIN_SERVED, MAX_HEALTH, MAX_MEMORY, MAX_RECOVERY = 0.95, 2.0, 488, 10.0
"""Share of honest requests; seconds; MiB (512 MB); seconds."""
MIN_REQUESTS = 6
"""Of all honest trainers during an attack."""
NO_ANSWER = 5.0
"""Seconds after which a health check is given up."""


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
    """Attack a collector that is up for so long at least. `tokens`: of the honest trainers and of the attacker."""
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
    pause(max(end - time.monotonic(), 0.0))
    eventually(lambda: sum(one.num_requests for one in trainers) >= MIN_REQUESTS)  # a busy machine sends few
    stopping.set()
    for thread in threads:
        thread.join(30)
    ended = time.monotonic()
    attack.stop()
    answers = eventually(lambda: is_healthy(collector.url, 1.0) and trainers[0].report())
    recovery = time.monotonic() - ended if answers else float("inf")
    attack.close()
    num_requests = sum(one.num_requests for one in trainers)
    served = sum(one.num_served for one in trainers) / num_requests
    memory = peak_memory(collector.pid)
    return Outcome(name, num_requests, round(served, 3), round(health.slowest, 3), memory, round(recovery, 2))


@contextlib.contextmanager
def collector_with_tokens(folder: Path, **environment: Any) -> Iterator[tuple[CollectorProcess, tuple[str, str]]]:
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
