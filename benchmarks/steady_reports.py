"""Trainers that report one step at a time all the while something else happens to the store.

with steady_reports(url, runs=20) as reports: ...; reports.longest_gap(since)
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import urllib3

from lossguard.vocabulary.protocol import API

EVERY = 0.1
"""Seconds between two reports of a run."""
METRICS = ("loss", "grad_norm", "log_z", "log_z_max", "z_loss", "lr", "tokens", "step_seconds")


@dataclass(slots=True)
class SteadyReports:
    """What was acknowledged, and when; times are those of `time.monotonic`."""

    times: list[float] = field(default_factory=list)
    waits: list[tuple[float, float]] = field(default_factory=list)
    """(when a report was acknowledged, the seconds that it took, repetitions included)"""
    num_refused: int = 0
    """Answers that made a trainer send its report again."""

    def longest_gap(self, since: float) -> float:
        """Seconds without any acknowledged report, at most, since then."""
        times = sorted(at for at in self.times if at >= since)
        return max(later - earlier for earlier, later in pairwise([since, *times, time.monotonic()]))

    def longest_wait(self, since: float) -> float:
        """Seconds that the slowest report took since then."""
        return max((seconds for at, seconds in self.waits if at >= since), default=float("inf"))


@contextmanager
def steady_reports(url: str, *, runs: int, project: str = "live") -> Iterator[SteadyReports]:
    """`runs` trainers report to the collector at `url` until the block ends."""
    reports, end = SteadyReports(), threading.Event()
    with urllib3.PoolManager(maxsize=runs, retries=False, timeout=60) as http:
        names = [f"{project}-{number}" for number in range(runs)]
        for name in names:
            _register(http, url, name, project)
        threads = [threading.Thread(target=_report, args=(http, url, name, reports, end)) for name in names]
        for thread in threads:
            thread.start()
        try:
            yield reports
        finally:
            end.set()
            for thread in threads:
                thread.join()


def _register(http: urllib3.PoolManager, url: str, name: str, project: str) -> None:
    run = {"id": name, "project": project, "capabilities": ["rollback"], "started_at": 0.0}
    segment = {"key": "a", "fork_step": 0, "reason": "start", "opened_at": 0.0}
    for path, body in (("", run), (f"/{name}/segments", segment)):
        answer = _post(http, f"{url}{API}/runs{path}", body)
        if answer.status >= 300:
            raise RuntimeError(f"{path} was answered {answer.status}: {answer.data[:300]!r}")


def _report(http: urllib3.PoolManager, url: str, name: str, reports: SteadyReports, end: threading.Event) -> None:
    step = 0
    while not end.wait(EVERY):
        columns = {metric: [2.0 + step / 1e6] for metric in METRICS}
        body = {"segment": 0, "steps": [step], "times": [1.8e9 + step], "metrics": columns}
        began = time.monotonic()
        while _post(http, f"{url}{API}/runs/{name}/reports", body).status >= 300:
            reports.num_refused += 1
            time.sleep(EVERY)
        now = time.monotonic()
        reports.times.append(now)
        reports.waits.append((now, now - began))
        step += 1


def _post(http: urllib3.PoolManager, url: str, body: object) -> urllib3.BaseHTTPResponse:
    return http.request("POST", url, body=json.dumps(body).encode(), headers={"content-type": "application/json"})
