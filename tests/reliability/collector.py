"""A collector process that tests start, kill and restart, and a trainer that retries until it is answered."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3

from lossguard.vocabulary.protocol import API
from tests import fork_server
from tests.ports import free_port
from tests.waiting import eventually, pause

NOW = 1_800_000_000.0
CHECKPOINTS = list(range(0, 20_000, 50))


class CollectorProcess:
    """`python -m monitor serve` on a port of its own, with one database; it can be killed and started again.

    `code`: the folder of another release, whose collector it is.
    """

    def __init__(self, database_url: str, log: Path, *, code: Path | None = None, **environment: str) -> None:
        self.port = free_port()
        self.code = code
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        self._environment = os.environ | environment | {"LOSSGUARD_DATABASE_URL": database_url, "OMP_NUM_THREADS": "1"}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process, warm if it is of this release; do not wait until it answers."""
        arguments = ["serve", "--port", str(self.port)]
        with self.log.open("ab") as log:
            if self.code is None:
                self._process = fork_server.started("monitor", *arguments, env=self._environment, log=log)
                return
            environment = self._environment | {"PYTHONPATH": str(self.code)}
            command = [sys.executable, "-m", "monitor", *arguments]
            self._process = subprocess.Popen(command, env=environment, cwd=self.code, stdout=log, stderr=log)

    def wait_until_up(self, path: str = "/readyz", *, timeout: float = 60.0) -> None:
        """`path`: /healthz for a collector with a token, which answers nothing else without it."""
        with urllib3.PoolManager(retries=False, timeout=5.0) as http:
            assert eventually(lambda: self._answers(http, path), timeout), self.log.read_text()

    def _answers(self, http: urllib3.PoolManager, path: str) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        try:
            return http.request("GET", f"{self.url}{path}").status == 200
        except urllib3.exceptions.HTTPError:
            return False  # not listening yet

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """Send SIGKILL: no handler runs, nothing is flushed."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(60)

    def stop(self) -> int:
        """Send SIGTERM, as an operator does; return the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(60)


@contextmanager
def running(*collectors: CollectorProcess, path: str = "/readyz") -> Iterator[tuple[CollectorProcess, ...]]:
    """They start at the same moment, and answer; after the block none of them is left."""
    try:
        for one in collectors:
            one.start()
        for one in collectors:
            one.wait_until_up(path)
        yield collectors
    finally:
        for one in collectors:
            one.kill()


class Trainer:
    """Reports a run to several collectors in turn, retries until it is answered, and counts the answers."""

    def __init__(
        self, urls: Sequence[str], run_id: str, *, patience: float = 120.0, http: urllib3.PoolManager | None = None
    ) -> None:
        self.urls, self.run_id, self.patience = list(urls), run_id, patience
        self.http = http or urllib3.PoolManager(retries=False, timeout=20.0)
        self.accepted = self.duplicates = self.retries = 0
        self.orders: dict[int, dict[str, Any]] = {}
        self._turn = 0
        self.send("POST", "/runs", {"id": run_id, "project": "p", "capabilities": ["rollback"], "started_at": NOW})

    def send(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, url: str | None = None) -> Any:
        """The answer as JSON. Retries lost connections, truncated answers, 429, 502 to 504; any other status fails."""
        deadline = time.monotonic() + self.patience
        while True:
            target = url or self.urls[self._turn % len(self.urls)]
            self._turn += 1
            try:
                answer = self.http.request(method, f"{target}{API}{path}", json=body)
                if answer.status < 300:
                    return json.loads(answer.data)
                assert answer.status in (429, 502, 503, 504), (answer.status, answer.data)
            except (urllib3.exceptions.HTTPError, json.JSONDecodeError):
                pass  # down, or cut off in the middle of its answer: the next attempt may succeed
            assert time.monotonic() < deadline, f"{path} was not accepted within {self.patience} s"
            self.retries += 1
            pause(0.05)

    def open(self, key: str, fork_step: int | None = 0, reason: str = "start", order: int | None = None) -> int:
        body = {"key": key, "fork_step": fork_step, "reason": reason, "order": order, "opened_at": NOW}
        number: int = self.send("POST", f"/runs/{self.run_id}/segments", body)["segment"]
        return number

    def report(self, body: Mapping[str, Any], *, url: str | None = None) -> dict[str, Any]:
        answer: dict[str, Any] = self.send("POST", f"/runs/{self.run_id}/reports", body, url=url)
        self.accepted += answer["accepted"]
        self.duplicates += answer["duplicates"]
        self.orders |= {order["id"]: order for order in answer["orders"]}
        return answer

    def obey(self, order: Mapping[str, Any], key: str) -> int:
        """Send what the SDK sends after a rollback; the number of the new segment."""
        segment = self.open(key, order["rewind_to"], "rollback", order["id"])
        answer = {"state": "applied", "key": order["key"], "rewound_to": order["rewind_to"]}
        self.send("PUT", f"/orders/{order['id']}", answer | {name: order[name] for name in ("skip_from", "skip_to")})
        return segment

    def get(self, path: str = "") -> Any:
        return self.send("GET", f"/runs/{self.run_id}{path}")


def reports(segment: int, first: int, last: int, size: int, *, seed: int, nan_at: int | None = None) -> list[Any]:
    """Reports of steps [first, last), each of `size` steps: noise around a constant; the loss is NaN at `nan_at`."""
    bodies = []
    for begin in range(first, last, size):
        steps = range(begin, min(begin + size, last))
        metrics = {
            "loss": ["NaN" if step == nan_at else _noise(seed, step, 3.0, 0.02) for step in steps],
            "grad_norm": [_noise(seed + 1, step, 0.5, 0.02) for step in steps],
            "eval/acc": [_noise(seed + 2, step, 0.3, 0.02) for step in steps],
        }
        body = {"segment": segment, "steps": list(steps), "times": [NOW + step for step in steps], "metrics": metrics}
        bodies.append(body | ({"restorable_steps": CHECKPOINTS} if begin == first else {}))
    return bodies


def _noise(seed: int, step: int, mean: float, scale: float) -> float:
    return mean + random.Random(seed * 1_000_003 + step).gauss(0, scale)


INCIDENT_FIELDS = (
    "number",
    "kind",
    "state",
    "signal",
    "onset_step",
    "detected_step",
    "peak_step",
    "end_step",
    "score",
    "outcome",
)
INTERVENTION_FIELDS = ("number", "incident", "kind", "state", "attempt", "rewind_to", "skip_from", "skip_to")


def verdicts(trainer: Trainer) -> dict[str, Any]:
    """The collector's verdicts on a run, without the times and ids that differ between runs."""
    run = trainer.get()
    return {
        "incidents": [{name: row[name] for name in INCIDENT_FIELDS} for row in trainer.get("/incidents")],
        "interventions": [{name: row[name] for name in INTERVENTION_FIELDS} for row in run["interventions"]],
        "ledger": [(row["skip_from"], row["skip_to"]) for row in run["skip_ledger"]],
        "orders": [(row["kind"], row["state"], row["rewind_to"]) for row in run["orders"]],
        "outliers": sorted(row["key"] for row in run["events"]),
        "segments": [(row["number"], row["parent"], row["fork_step"], row["num_steps"]) for row in run["segments"]],
    }


def history(trainer: Trainer) -> list[Any]:
    """Every stored value of two metrics of the run, on both segments."""
    series = [
        f"/series?metric={name}&segment={number}&points=20000" for name in ("loss", "eval/acc") for number in (0, 1)
    ]
    return [trainer.get(path) for path in series]
