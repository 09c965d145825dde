"""How many one-step reports per second the collectors ingest: over HTTP, 50 runs at once, into PostgreSQL.

    python -m benchmarks.reports [--seconds 10] [--collectors 2] [--runs 50] [--sqlite] [--in-turn] [--every 1]

A temporary PostgreSQL server with safe settings (fsync and synchronous_commit on), collector processes, and this
process as all trainers: one persistent connection per run, the next report when the last one is answered. Every run has
reported once before the clock starts. Every report must be acknowledged, and in the end every acknowledged step must be
stored. With --in-turn the reports of a run go to the collectors in turn, as with a load balancer without sticky
sessions. With --every a run reports at most once in that many seconds, like a run that trains: then the share of a core
counts. With --nginx they go over TLS to nginx with deploy/nginx/lossguard.conf, which chooses the collector. The CPU
time of the collectors, of the database, of nginx and of this process is printed for each. --code names a checkout of
another release whose collectors are measured.
"""

import argparse
import asyncio
import json
import random
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from pathlib import Path

import sqlalchemy as sa
import uvloop

from benchmarks.collectors import collector, cpu_seconds, tree_cpu_seconds
from benchmarks.rows import Row, print_rows
from db import migrate
from db.lineage import StepRange
from db.models import Segment
from db.steps import reader
from db.store.engine import create_engine, reading
from lossguard.vocabulary.protocol import API
from tests import postgres
from tests.deploy.proxy import COLLECTOR, Proxy, in_front_of

TOKEN = "of-the-benchmark"
TARGET_US = 1e6 / 3_000
STARTED_AT_ONCE = 20
"""Runs that are registered at once, before the clock starts: a first report takes longer than the next ones."""


@dataclass(slots=True)
class Load:
    """The load of one measurement, and what the trainers have sent."""

    seconds: float
    every: float = 0.0
    """Seconds from a run's report to its next."""
    num_acknowledged: int = 0
    took: float = 0.0
    """Seconds from the first of these reports to the last."""
    latencies: list[float] = field(default_factory=list)


def measure(
    *,
    seconds: float = 10.0,
    collectors: int = 2,
    runs: int = 50,
    sqlite: bool = False,
    in_turn: bool = False,
    every: float = 0.0,
    nginx: bool = False,
    code: Path | None = None,
) -> Iterator[Row]:
    with ExitStack() as stack:
        server = None if sqlite else stack.enter_context(postgres.running(durable=True))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        database = f"sqlite:///{folder}/store.db" if server is None else server.url()
        limits = {"LOSSGUARD_TOKEN": TOKEN} | settings(runs)
        started = [stack.enter_context(collector(database, code=code, **limits)) for _ in range(collectors)]
        ports = [_port(url) for url, _ in started]
        front = stack.enter_context(in_front_of(Path(folder), ports)) if nginx else None
        load = Load(seconds, every)
        used = apply(load, started, server, runs=runs, in_turn=in_turn, front=front)
        _check_stored(database, load.num_acknowledged + runs)
    load.latencies.sort()
    median, p99 = (1e3 * load.latencies[int(part * len(load.latencies))] for part in (0.5, 0.99))
    name = f"reports of one step, {runs} runs, {collectors} collector(s){' in turn' if in_turn else ''}, "
    name += f"{'nginx, ' if nginx else ''}{'SQLite' if sqlite else 'PostgreSQL'}"
    comparison = (
        f"{load.num_acknowledged / load.took:,.0f} reports/s; "
        f"answered in {median:.1f} ms (median), {p99:.1f} ms (p99); CPU time per report: {_shares(used, load)}"
    )
    yield Row(name, 1e6 * load.took / load.num_acknowledged, "us per report", None if every else TARGET_US, comparison)


def settings(runs: int) -> dict[str, str]:
    """Of a collector that takes the reports of so many runs at once, from one address."""
    limit = str(max(1_000, 2 * runs))
    names = ("MAX_REQUESTS_AT_ONCE", "MAX_CONNECTIONS", "MAX_CONNECTIONS_PER_ADDRESS")
    return {f"LOSSGUARD_{name}": limit for name in names}


def apply(
    load: Load,
    collectors: Sequence[tuple[str, int]],
    server: postgres.Server | None,
    *,
    runs: int,
    in_turn: bool = False,
    front: Proxy | None = None,
) -> dict[str, float]:
    """Let new runs report to collectors, each a URL and a process: seconds of CPU time meanwhile, by who used them.

    `front`: the nginx to which they report.
    """
    cpu_time = partial(_cpu_time, [process for _, process in collectors], server, front)
    addresses = [_Address(_port(url)) for url, _ in collectors]
    if front is not None:
        addresses = [_Address(front.port, ssl.create_default_context(cafile=front.certificate))]
    return uvloop.run(_all_trainers(addresses, runs, load, cpu_time, in_turn=in_turn))


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])


def _cpu_time(collectors: Sequence[int], server: postgres.Server | None, front: Proxy | None) -> dict[str, float]:
    """Seconds of CPU time so far, by who used them."""
    used = {"collectors": sum(cpu_seconds(process) for process in collectors)}
    if server is not None:
        used["database"] = tree_cpu_seconds(server.process())
    if front is not None:
        used["nginx"] = tree_cpu_seconds(front.process())
    return used | {"client": time.process_time()}


def _shares(used: Mapping[str, float], load: Load) -> str:
    """What each used per report, and of a core."""
    return ", ".join(
        f"{who} {1e6 * seconds / load.num_acknowledged:,.0f} us ({100 * seconds / load.took:.0f} % of a core)"
        for who, seconds in used.items()
    )


@dataclass(frozen=True, slots=True)
class _Address:
    """A port of this machine to which trainers connect."""

    port: int
    tls: ssl.SSLContext | None = None

    async def connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        name = None if self.tls is None else COLLECTOR
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls, server_hostname=name)


async def _all_trainers(
    addresses: Sequence[_Address],
    runs: int,
    load: Load,
    cpu_time: Callable[[], dict[str, float]],
    *,
    in_turn: bool,
) -> dict[str, float]:
    """Register every run and report once, then report for the load's time: what that used of CPU time, by who."""
    chosen = [addresses if in_turn else [addresses[number % len(addresses)]] for number in range(runs)]
    at_once = asyncio.Semaphore(STARTED_AT_ONCE)
    trainers = await asyncio.gather(
        *(_Trainer.started(f"r{number}", some, at_once) for number, some in enumerate(chosen))
    )
    await asyncio.gather(*(trainer.connect() for trainer in trainers))
    before, began = cpu_time(), time.perf_counter()
    await asyncio.gather(*(trainer.report_until(began + load.seconds, load) for trainer in trainers))
    load.took = time.perf_counter() - began
    return {who: seconds - before[who] for who, seconds in cpu_time().items()}


class _Trainer:
    """One run with one connection to each of its collectors, by a minimal HTTP client."""

    def __init__(self, run: str, addresses: Sequence[_Address]) -> None:
        self.run, self._addresses = run, addresses
        self._noise = random.Random(run)

    async def connect(self) -> None:
        """Open its connections; older ones are dropped. A collector closes those that are idle for some seconds."""
        self._in_turn = cycle([await address.connection() for address in self._addresses])

    @classmethod
    async def started(cls, run: str, addresses: Sequence[_Address], at_once: asyncio.Semaphore) -> "_Trainer":
        trainer = cls(run, addresses)
        new = {"id": run, "project": "bench", "capabilities": ["rollback"], "started_at": 0.0}
        segment = {"key": "a", "fork_step": 0, "reason": "start", "opened_at": 0.0}
        async with at_once:
            await trainer.connect()
            await trainer._post("", json.dumps(new))
            await trainer._post(f"/{run}/segments", json.dumps(segment))
            await trainer._post(f"/{run}/reports", trainer._report(0))
        return trainer

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
        """As the SDK writes it. By a template, at a third of an encoder's cost: this process has no core of its own."""
        noise = self._noise
        return (
            f'{{"segment": 0, "steps": [{step}], "times": [{1.8e9 + step}], "metrics": {{'
            f'"loss": [{2.5 + 3 / (1 + step / 500) + noise.gauss(0, 0.02)}], '
            f'"grad_norm": [{0.5 + abs(noise.gauss(0, 0.05))}], '
            f'"log_z": [{1.0 + noise.gauss(0, 0.01)}], "log_z_max": [{2.0 + noise.random()}], '
            f'"z_loss": [{1e-4 * noise.random()}], "lr": [0.0003], "tokens": [{(step + 1) * 8192}], '
            f'"step_seconds": [0.4]}}}}'
        )

    async def _post(self, path: str, body: str) -> None:
        content = body.encode()
        head = f"POST {API}/runs{path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        head += f"authorization: Bearer {TOKEN}\r\n"
        reader, writer = next(self._in_turn)
        writer.write(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        payload = await reader.readexactly(length)
        if not answer.startswith(b"HTTP/1.1 2"):
            raise RuntimeError(f"{path} was answered {answer[:80]!r}: {payload[:300]!r}")
        if b"connection: close" in answer.lower():  # nginx: after 1,000 requests
            await self.connect()


def _check_stored(database: str, num_acknowledged: int) -> None:
    engine = create_engine(database)
    migrate.upgrade(engine)  # for the store of another release
    with reading(engine) as session:
        segments = session.execute(sa.select(Segment.run_pk, Segment.number)).all()
        stored = sum(
            len(reader.read_steps(session, run_pk=run_pk, step_range=StepRange(number, 0, None)))
            for run_pk, number in segments
        )
    engine.dispose()
    if stored != num_acknowledged:
        raise RuntimeError(f"{num_acknowledged} steps were acknowledged, {stored} are stored")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--collectors", type=int, default=2)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--sqlite", action="store_true", help="use SQLite instead of PostgreSQL")
    parser.add_argument("--every", type=float, default=0.0, help="seconds between two reports of a run")
    parser.add_argument("--code", type=Path, help="checkout of another release whose collectors are measured")
    parser.add_argument("--nginx", action="store_true", help="report to nginx, over TLS")
    parser.add_argument("--in-turn", action="store_true", help="send a run's reports to the collectors in turn")
    print_rows(measure(**vars(parser.parse_args())))
