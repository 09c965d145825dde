"""What a run that reports without a pause costs another one: the time until its reports of one step are answered.

    python -m benchmarks.noisy_run [--seconds 10] [--steps 1000] [--metrics 60]

Two collectors on one temporary PostgreSQL server. The quiet run reports 20 times a second: alone, beside a noisy run at
the same collector, and beside it at the other one. The noisy run is a process of its own, which sends its next report
as soon as the last one is answered, like a trainer that delivers what it has spooled for days.
"""

import argparse
import json
import multiprocessing
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any

import urllib3

from benchmarks.collectors import collector
from benchmarks.rows import Row, print_rows
from lossguard.vocabulary.protocol import API
from tests import postgres

TOKEN = "of-the-benchmark"
PAUSE = 0.05
"""Seconds between two reports of the quiet run."""


def measure(*, seconds: float = 10.0, steps: int = 1_000, metrics: int = 60) -> Iterator[Row]:
    with ExitStack() as stack:
        database = stack.enter_context(postgres.running(durable=True)).url()
        first, second = (stack.enter_context(collector(database, LOSSGUARD_TOKEN=TOKEN))[0] for _ in range(2))
        yield _row("alone", _quiet(first, "alone", seconds))
        with _noisy(first, steps, metrics):
            yield _row("beside a noisy run, same collector", _quiet(first, "same", seconds))
            yield _row("beside a noisy run, another collector", _quiet(second, "other", seconds))


def _row(where: str, latencies: Sequence[float]) -> Row:
    took = sorted(1e3 * one for one in latencies)
    p99 = took[int(0.99 * len(took))]
    return Row(
        f"report of one step, {where}", took[len(took) // 2], "ms", None, f"p99 {p99:.1f} ms; {len(took)} reports"
    )


def _quiet(url: str, run: str, seconds: float) -> list[float]:
    trainer, latencies, end = _Trainer(url, run), [], time.monotonic() + seconds
    for step in count():
        began = time.perf_counter()
        trainer.report(range(step, step + 1), 2)
        latencies.append(time.perf_counter() - began)
        if time.monotonic() > end:
            return latencies
        time.sleep(PAUSE)
    raise AssertionError


@contextmanager
def _noisy(url: str, steps: int, metrics: int) -> Iterator[None]:
    process = multiprocessing.get_context("spawn").Process(target=_flood, args=(url, steps, metrics), daemon=True)
    process.start()
    time.sleep(3)  # until it reports
    try:
        assert process.is_alive(), "the noisy run has ended"
        yield
        assert process.is_alive(), "the noisy run has ended"
    finally:
        process.terminate()
        process.join()


def _flood(url: str, steps: int, metrics: int) -> None:
    trainer = _Trainer(url, "noisy")
    for first in count(0, steps):
        trainer.report(range(first, first + steps), metrics)


class _Trainer:
    """A run with one connection."""

    def __init__(self, url: str, run: str) -> None:
        self._http, self._path, self._noise = urllib3.PoolManager(), f"{url}{API}/runs", random.Random(run)
        self._post("", {"id": run, "project": "bench", "capabilities": [], "started_at": 0.0})
        self._path += f"/{run}"
        self._post("/segments", {"key": "a", "fork_step": 0, "reason": "start", "opened_at": 0.0})

    def report(self, steps: range, num_metrics: int) -> None:
        names = ["loss", "grad_norm", *(f"custom/{number}" for number in range(num_metrics - 2))]
        values = {name: [2.0 + self._noise.gauss(0, 0.02) for _ in steps] for name in names}
        body = {"segment": 0, "steps": list(steps), "times": [1.8e9 + step for step in steps], "metrics": values}
        self._post("/reports", body)

    def _post(self, path: str, body: dict[str, Any]) -> None:
        headers = {"content-type": "application/json", "authorization": f"Bearer {TOKEN}"}
        answer = self._http.request("POST", self._path + path, body=json.dumps(body).encode(), headers=headers)
        if answer.status >= 300:
            raise RuntimeError(f"{path} was answered {answer.status}: {answer.data[:300]!r}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--steps", type=int, default=1_000, help="of a report of the noisy run")
    parser.add_argument("--metrics", type=int, default=60, help="of the noisy run")
    print_rows(measure(**vars(parser.parse_args())))
