"""Rates at which collectors ingest reports over HTTP with all detectors on, and the bytes of a step in the store.

    python -m benchmarks.reports [--collectors 2] [--runs 50] [--sqlite]
    python -m benchmarks.reports --every 1              a run reports once a second: then the share of a core counts
    python -m benchmarks.reports --bytes [--reports 300]            bytes of a step, and memory of a collector

A temporary PostgreSQL server with safe settings (fsync and synchronous_commit on), collector processes, and this
process as all trainers: one persistent connection per run, the next report when the last one is answered. Every run has
reported once before the clock starts. The CPU time of collectors, database and client is printed for each.

For the bytes, a run arrives in reports of 1,000 steps with 8 metrics. The growth of the store (rows, roll-ups, indexes,
states of the detectors) is divided by the number of steps. PostgreSQL's log, which does not grow with the run, is
not counted.
"""

import argparse
import asyncio
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

import uvloop

from benchmarks import harness
from benchmarks.harness import Row, Site, place, print_rows, site
from benchmarks.stored_runs import METRICS, report
from lossguard.spool.lines import to_line
from lossguard.vocabulary.protocol import API

SIZE = 1_000
"""Steps of a large report."""
TARGET_US, LIMIT_BYTES, NUM_RUNS = 1e6 / 3_000, 150.0, 50
STARTED_AT_ONCE = 20
"""Runs that are registered at once, before the clock starts: a first report takes longer than the next ones."""
NAMED_TABLES = ("steps", "step_blocks", "block_values", "rollups")
Processes = dict[str, float]
"""CPU time in seconds, by who used it."""


@dataclass(slots=True)
class Load:
    """The load of one measurement, and what the trainers have sent."""

    seconds: float
    runs: int
    every: float = 0.0
    """Seconds from a run's report to its next."""
    num_acknowledged: int = 0
    took: float = 0.0
    """Seconds from the first of these reports to the last."""
    latencies: list[float] = field(default_factory=list)
    used: Processes = field(default_factory=dict)


def settings(runs: int) -> dict[str, str]:
    """Settings of a collector that takes the reports of this many runs at once, from one address."""
    names = ("MAX_REQUESTS_AT_ONCE", "MAX_CONNECTIONS", "MAX_CONNECTIONS_PER_ADDRESS")
    return {f"LOSSGUARD_{name}": str(max(1_000, 2 * runs)) for name in names}


def one_step(given: argparse.Namespace) -> Iterator[Row]:
    name = harness.SQLITE if given.sqlite else harness.POSTGRESQL
    with ExitStack() as stack:
        at, urls, processes = _started(stack, name, given)
        load = Load(given.seconds, given.runs, given.every)
        apply(load, at, urls, processes)
    load.latencies.sort()
    median, p99 = (1e3 * load.latencies[int(part * len(load.latencies))] for part in (0.5, 0.99))
    comparison = (
        f"{load.num_acknowledged / load.took:,.0f} reports/s; answered in {median:.1f} ms (median), {p99:.1f} ms "
        f"(p99); CPU time per report: {_shares(load.used, load.num_acknowledged, load.took)}"
    )
    label = f"reports of one step, {given.runs} runs, {given.collectors} collector(s), {name}"
    target = None if given.every else TARGET_US
    yield Row(label, 1e6 * load.took / load.num_acknowledged, "us per report", target, comparison)


def _started(stack: ExitStack, name: str, given: argparse.Namespace) -> tuple[Site, list[str], list[int]]:
    """A store with collectors: the site of the first, the URLs and the processes of all."""
    where, more = stack.enter_context(place(name, durable=True)), settings(given.runs)
    at = stack.enter_context(site(where, environment=more))
    started = [(at.url, at.process)]
    for _ in range(given.collectors - 1):
        more["LOSSGUARD_TOKEN"] = harness.TOKEN
        started.append(stack.enter_context(harness.collector(at.database, **more)))
    return at, [url for url, _ in started], [process for _, process in started]


def _cpu_time(at: Site, collectors: Sequence[int]) -> Processes:
    used = {"collectors": sum(map(harness.cpu_seconds, collectors))}
    if at.server is not None:
        used["database"] = harness.cpu_seconds(at.server.process(), children=True)
    return used | {"client": time.process_time()}


def _shares(used: Mapping[str, float], count: int, seconds: float) -> str:
    """CPU time of each for one of `count`, and as a share of a core."""
    return ", ".join(
        f"{who} {1e6 * each / count:,.1f} us ({100 * each / seconds:.0f} % of a core)" for who, each in used.items()
    )


def apply(load: Load, at: Site, urls: Sequence[str] = (), collectors: Sequence[int] = ()) -> float:
    """Let new runs report; returns the CPU seconds of collectors and database for a report."""
    ports = [int(url.rpartition(":")[2]) for url in urls or [at.url]]
    uvloop.run(_all_trainers(ports, load, lambda: _cpu_time(at, collectors or [at.process])))
    return (load.used["collectors"] + load.used.get("database", 0.0)) / load.num_acknowledged


async def _all_trainers(ports: Sequence[int], load: Load, cpu_time: Callable[[], Processes]) -> None:
    """Register every run and report once, then report for the load's time."""
    at_once = asyncio.Semaphore(STARTED_AT_ONCE)
    trainers = [_Trainer(f"r{number}", ports[number % len(ports)]) for number in range(load.runs)]
    await asyncio.gather(*(trainer.start(at_once) for trainer in trainers))
    await asyncio.gather(*(trainer.connect() for trainer in trainers))  # idle connections were closed meanwhile
    before, began = cpu_time(), time.perf_counter()
    await asyncio.gather(*(trainer.report_until(began + load.seconds, load) for trainer in trainers))
    load.took = time.perf_counter() - began
    load.used = {who: seconds - before[who] for who, seconds in cpu_time().items()}


class _Trainer:
    """One run with one connection, by a minimal HTTP client."""

    def __init__(self, run: str, port: int) -> None:
        self.run, self._port, self._noise = run, port, random.Random(run)

    async def connect(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)

    async def start(self, at_once: asyncio.Semaphore) -> None:
        new = {"id": self.run, "project": "bench", "capabilities": ["rollback"], "started_at": 0.0}
        segment = {"key": "a", "fork_step": 0, "reason": "start", "opened_at": 0.0}
        async with at_once:
            await self.connect()
            await self._post("", json.dumps(new))
            await self._post(f"/{self.run}/segments", json.dumps(segment))
            await self._post(f"/{self.run}/reports", self._report(0))

    async def report_until(self, end: float, load: Load) -> None:
        step = 1
        await asyncio.sleep(self._noise.random() * load.every)  # they do not step together
        while (began := time.perf_counter()) < end:
            await self._post(f"/{self.run}/reports", self._report(step))
            load.latencies.append(time.perf_counter() - began)
            load.num_acknowledged += 1
            step += 1
            await asyncio.sleep(max(0.0, began + load.every - time.perf_counter()) if load.every else 0.0)

    def _report(self, step: int) -> str:
        """A report as the SDK writes it. A template costs a third of an encoder, and this process shares its core."""
        noise = self._noise
        return (
            f'{{"segment": 0, "steps": [{step}], "times": [{1.8e9 + step}], "metrics": {{'
            f'"loss": [{2.5 + 3 / (1 + step / 500) + noise.gauss(0, 0.02)}], '
            f'"grad_norm": [{0.5 + abs(noise.gauss(0, 0.05))}], '
            f'"log_z": [{1.0 + noise.gauss(0, 0.01)}], "log_z_max": [{2.0 + noise.random()}], '
            f'"z_loss": [{1e-4 * noise.random()}], "lr": [0.0003], "tokens": [{(step + 1) * 8192}], '
            f'"step_seconds": [0.4]}}, "events": []}}'
        )

    async def _post(self, path: str, body: str) -> None:
        head = f"POST {API}/runs{path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        head += f"authorization: Bearer {harness.TOKEN}\r\n"
        self._writer.write(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
        answer = await self._reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        payload = await self._reader.readexactly(length)
        if not answer.startswith(b"HTTP/1.1 2"):
            raise RuntimeError(f"{path} was answered {answer[:80]!r}: {payload[:300]!r}")


def num_bytes(given: argparse.Namespace) -> Iterator[Row]:
    steps = given.reports * SIZE
    for name in harness.DATABASES:
        with place(name) as where, site(where) as at:
            empty = harness.table_sizes(at.database)
            _deliver(at, 0, given.reports)
            sizes = harness.table_sizes(at.database)
            one_run = harness.memory_mib(at.process, "VmHWM")
            with ThreadPoolExecutor(NUM_RUNS) as pool:
                list(pool.map(lambda number: _deliver(at, number, 2), range(1, 1 + NUM_RUNS)))
            peak = harness.memory_mib(at.process, "VmHWM")
        grown = {table: (size - empty.get(table, 0)) / steps for table, size in sizes.items()}
        parts = ", ".join(f"{part} {grown[part]:.0f}" for part in NAMED_TABLES)
        note = f"{parts}; {_spool_bytes():.0f} bytes in the trainer's spool"
        yield Row(f"{name}: a step with 8 metrics, {steps:,} steps", sum(grown.values()), "bytes", LIMIT_BYTES, note)
        note = f"one run, reports of {SIZE:,} steps: {one_run:.0f} MiB"
        yield Row(f"{name}: peak memory of a collector, {NUM_RUNS} runs at once", peak, "MiB", None, note)


def _deliver(at: Site, number: int, count: int) -> None:
    """Deliver the large reports of a new run."""
    noise = random.Random(number)
    at.register(f"r{number}")
    for first in range(0, count * SIZE, SIZE):
        at.post(f"/runs/r{number}/reports", report(noise, range(first, first + SIZE)))


def _spool_bytes() -> float:
    """Bytes of such a step in the SDK's spool."""
    metrics = dict.fromkeys(METRICS, 2.123456789012345)
    return len(to_line({"step": 100_000, "time": 1.8e9 + 0.123456, "metrics": metrics}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", action="store_true", help="measure the bytes of a step")
    parser.add_argument("--reports", type=int, default=300, help="reports of 1,000 steps of a run")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--collectors", type=int, default=2)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--sqlite", action="store_true", help="use SQLite instead of PostgreSQL")
    parser.add_argument("--every", type=float, default=0.0, help="seconds between two reports of a run")
    chosen = parser.parse_args()
    print_rows((num_bytes if chosen.bytes else one_step)(chosen))
