"""How many steps per second collectors ingest: over HTTP, with all detectors on.

    python -m benchmarks.ingest [--reports 300] [--collectors 2] [--peers] [--code ../other]

A collector process with a new SQLite store; this process posts pre-encoded reports of 1,000 steps with 8 metrics over
one persistent connection per run. First one run, then four at once. --collectors measures so many instead, on one
PostgreSQL server with safe settings, with two runs each. --peers also measures mlflow's server and trackio. --code
names a checkout of another release whose collectors are measured. The CPU time is printed of the collectors, of the
database where it is a process of its own, and of this process.
"""

import argparse
import json
import random
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import urllib3

from benchmarks import ingest_peers
from benchmarks.collectors import collector, cpu_seconds, tree_cpu_seconds
from benchmarks.rows import Row, print_rows
from lossguard.vocabulary.protocol import API
from tests import postgres

SIZE, NUM_METRICS = 1_000, 8
TARGET_US = 1e6 / 50_000


def measure(reports: int = 300, code: Path | None = None) -> Iterator[Row]:
    for runs in (1, 4):
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            url, process = stack.enter_context(collector(f"sqlite:///{folder}/store.db", code=code))
            bodies = [encoded_reports(seed, reports // runs) for seed in range(runs)]
            before, own = cpu_seconds(process), time.process_time()
            seconds = post_all(url, bodies)
            used, own = cpu_seconds(process) - before, time.process_time() - own
        steps = runs * (reports // runs) * SIZE
        label = f"ingestion over HTTP into SQLite, {runs} run(s), {NUM_METRICS} metrics, reports of {SIZE:,}"
        comparison = f"{steps / seconds:,.0f} steps/s; CPU time of the collector: {1e6 * used / steps:.1f} us per step"
        comparison += f", of the client: {1e6 * own / steps:.1f}"
        yield Row(label, 1e6 * seconds / steps, "us per step", TARGET_US, comparison)


def measure_collectors(collectors: int, reports: int = 300, code: Path | None = None) -> Iterator[Row]:
    """The same for so many collectors of one PostgreSQL."""
    with ExitStack() as stack:
        server = stack.enter_context(postgres.running(durable=True))
        started = [stack.enter_context(collector(server.url(), code=code)) for _ in range(collectors)]
        bodies = [
            [encoded_reports(seed, reports) for seed in range(number, number + 2)] for number in range(collectors)
        ]
        before, database = sum(cpu_seconds(process) for _, process in started), tree_cpu_seconds(server.process())
        own, began = time.process_time(), time.perf_counter()
        with ThreadPoolExecutor(collectors) as posting:
            urls, names = [url for url, _ in started], [f"c{number}-" for number in range(collectors)]
            list(posting.map(post_all, urls, bodies, names))
        seconds, own = time.perf_counter() - began, time.process_time() - own
        used = sum(cpu_seconds(process) for _, process in started) - before
        database = tree_cpu_seconds(server.process()) - database
    steps = 2 * collectors * reports * SIZE
    label = f"ingestion over HTTP into PostgreSQL, {collectors} collector(s) with 2 runs each, {NUM_METRICS} metrics"
    shares = {"collectors": used, "database": database, "client": own}
    cpu = ", ".join(f"of the {name} {1e6 * share / steps:.1f}" for name, share in shares.items())
    yield Row(
        f"{label}, reports of {SIZE:,}",
        1e6 * seconds / steps,
        "us per step",
        TARGET_US,
        f"{steps / seconds:,.0f} steps/s; CPU time in us per step: {cpu}",
    )


def encoded_reports(seed: int, count: int) -> list[bytes]:
    """Report bodies of a quiet run: a slowly falling loss with noise."""
    noise = random.Random(seed)
    return [json.dumps(report(noise, at * SIZE)).encode() for at in range(count)]


def report(noise: random.Random, first: int, size: int = SIZE, *, segment: int = 0) -> dict[str, Any]:
    """The body of a report of `size` steps, the first of which is `first`."""
    steps = range(first, first + size)
    metrics = {
        "loss": [2.5 + 3 / (1 + step / 500) + noise.gauss(0, 0.02) for step in steps],
        "grad_norm": [0.5 + abs(noise.gauss(0, 0.05)) for _ in steps],
        "log_z": [1.0 + noise.gauss(0, 0.01) for _ in steps],
        "log_z_max": [2.0 + noise.random() for _ in steps],
        "z_loss": [1e-4 * noise.random() for _ in steps],
        "lr": [3e-4] * size,
        "tokens": [(step + 1) * 8192 for step in steps],
        "step_seconds": [0.4 + noise.random() / 100 for _ in steps],
    }
    assert len(metrics) == NUM_METRICS
    times = [1.8e9 + 0.4 * step for step in steps]
    return {"segment": segment, "steps": list(steps), "times": times, "metrics": metrics}


def post_all(url: str, bodies: Sequence[Sequence[bytes]], prefix: str = "r") -> float:
    """Seconds until every run has delivered all of its reports; their ids begin with `prefix`."""
    prefix = prefix.replace(" ", "-")
    with urllib3.PoolManager(maxsize=len(bodies), retries=False) as http:
        for number in range(len(bodies)):
            _post(http, f"{url}{API}/runs", {"id": f"{prefix}{number}", "project": "bench", "started_at": 0.0})
            body = {"key": "a", "fork_step": 0, "reason": "start", "opened_at": 0.0}
            _post(http, f"{url}{API}/runs/{prefix}{number}/segments", body)

        def deliver(number: int) -> None:
            for body in bodies[number]:
                _post(http, f"{url}{API}/runs/{prefix}{number}/reports", body)

        threads = [threading.Thread(target=deliver, args=(number,)) for number in range(len(bodies))]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - began


def _post(http: urllib3.PoolManager, url: str, body: object) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = http.request("POST", url, body=content, headers={"content-type": "application/json"})
    if answer.status >= 300:
        raise RuntimeError(f"{url} answered {answer.status}: {answer.data[:300]!r}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingest")
    parser.add_argument("--reports", type=int, default=300, help="reports of 1,000 steps")
    parser.add_argument(
        "--peers", action="store_true", help="also measure mlflow and trackio, installed into a temporary folder"
    )
    parser.add_argument("--code", type=Path, help="checkout of another release whose collector is measured")
    parser.add_argument("--collectors", type=int, help="measure so many collectors of one PostgreSQL instead")
    arguments = parser.parse_args()
    rows = (
        measure_collectors(arguments.collectors, arguments.reports, arguments.code)
        if arguments.collectors
        else measure(arguments.reports, arguments.code)
    )
    print_rows(chain(rows, ingest_peers.measure() if arguments.peers else ()))
