"""Shared parts of the benchmarks: tables, repeated timings, collectors and stores of their own, peers, and a sink.

A sink is the smallest substitute for a collector: `python -m benchmarks.harness` is its process.
"""

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
import urllib3

from db import migrate
from db.store.engine import create_engine
from lossguard import Client, CollectorError
from lossguard.vocabulary.protocol import API
from tests import postgres
from tests.ports import free_port
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[1]
TOKEN = "of-the-benchmark"
SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"
DATABASES = (SQLITE, *((POSTGRESQL,) if postgres.PROGRAMS else ()))
"""Databases that this machine has."""
MIN_CALLS, MAX_CALLS, ENOUGH_SECONDS = 5, 60, 0.4
"""Calls of a cost, and the CPU time after which it is not measured any further."""
NUM_CONNECTIONS = 50
"""Connections of a client to its collector."""
TABLE_SIZES = {
    "sqlite": "SELECT m.tbl_name, sum(s.pgsize) FROM dbstat s JOIN sqlite_schema m ON m.name = s.name GROUP BY 1",
    "postgresql": "SELECT COALESCE(p.relname, c.relname), sum(pg_total_relation_size(c.oid)) FROM pg_class c"
    " LEFT JOIN pg_inherits i ON i.inhrelid = c.oid LEFT JOIN pg_class p ON p.oid = i.inhparent"
    " WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace GROUP BY 1",
}
"""SQL for the bytes of each table, with its indexes and its partitions."""


@dataclass(frozen=True, slots=True)
class Row:
    """`target` is the largest acceptable `value`, None if there is none; `comparison` gives context."""

    name: str
    value: float
    unit: str
    target: float | None = None
    comparison: str = ""

    def cells(self) -> tuple[str, str, str, str]:
        target = "" if self.target is None else f"at most {self.target:g} {self.unit}"
        met = "" if self.target is None else (" (met)" if self.value <= self.target else " (NOT met)")
        return self.name, f"{self.value:.3g} {self.unit}", target + met, self.comparison


def print_rows(rows: Iterable[Row]) -> None:
    """Print a Markdown table, in the format of docs/benchmarks.md."""
    print("| measurement | value | target | comparison |\n|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row.cells()) + " |", flush=True)


def heading(title: str, *columns: str) -> str:
    """The head of a Markdown table of other measurements."""
    return f"\n### {title}\n\n| " + " | ".join(columns) + " |\n|" + "---|" * len(columns)


def rounded(value: float) -> str:
    """Three digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def load() -> str:
    """The load of the machine, for a comparison column."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def added(with_it: float, without: float) -> str:
    """A difference in percent."""
    return f"{100 * (with_it / without - 1):+.2f} %"


def seconds_of(call: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    began = clock()
    call()
    return clock() - began


def median_of(call: Callable[[], object], times: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Median seconds of repeated calls."""
    return statistics.median(seconds_of(call, clock) for _ in range(times))


def interleaved(
    ways: Sequence[Callable[[int], Sequence[float]]], rounds: int, warm_up: int
) -> list[list[tuple[float, ...]]]:
    """Measure several ways in turn, so that other work on the machine meets all of them; which is first rotates.

    Each way gets the number of the round, and returns its measurements. Returns those after `warm_up`, by way.
    """
    found: list[list[tuple[float, ...]]] = [[] for _ in ways]
    for number in range(warm_up + rounds):
        for place in ((number + offset) % len(ways) for offset in range(len(ways))):
            measured = tuple(ways[place](number))
            if number >= warm_up:
                found[place].append(measured)
    return found


@contextmanager
def collector(database: str, **more: str) -> Iterator[tuple[str, int]]:
    """The URL and the process id of a collector; `more` goes into its environment."""
    port = free_port()
    environment = os.environ | more | {"LOSSGUARD_DATABASE_URL": database, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "monitor", "serve", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        with Client(url) as client:
            wait_for(lambda: _answers(client), seconds=120, what="a collector that answers")
        yield url, process.pid
    finally:
        process.terminate()
        process.wait(120)


def _answers(client: Client) -> bool:
    try:
        client.ping()
    except CollectorError:  # not listening yet
        return False
    return True


def cpu_seconds(process: int, *, children: bool = False) -> float:
    """CPU time of the living threads of a process, and of its children if asked, to the microsecond (Linux).

    0 for a process that has ended.
    """
    tasks = Path(f"/proc/{process}/task")
    try:
        used = sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9
    except (FileNotFoundError, ProcessLookupError):  # a thread, or all of it, has ended while it was read
        return 0.0
    if not children:
        return used
    found = (tasks / str(process) / "children").read_text().split()
    return used + sum(cpu_seconds(int(child)) for child in found)


def memory_mib(process: int, what: str) -> float:
    """MiB (Linux): VmRSS is the current value, VmHWM the peak so far."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


@dataclass(frozen=True, slots=True)
class Place:
    """A database system."""

    name: str
    folder: Path
    server: postgres.Server | None
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    @contextmanager
    def new_store(self) -> Iterator[str]:
        """The URL of an empty store, which is deleted after the block."""
        name = f"bench_{next(self._numbers)}"
        url = f"sqlite:///{self.folder}/{name}.db" if self.server is None else self.server.create_database(name)
        engine = create_engine(url)
        migrate.upgrade(engine)
        engine.dispose()
        yield url
        if self.server is not None:
            self.server.drop_database(name)
        for part in self.folder.glob(f"{name}.db*"):
            part.unlink()


@contextmanager
def place(name: str, *, durable: bool = False) -> Iterator[Place]:
    """One of DATABASES; `durable`: PostgreSQL with fsync and synchronous_commit on."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="lossguard-bench-"))
        server = None if name == SQLITE else stack.enter_context(postgres.running(durable=durable))
        yield Place(name, Path(folder), server)


def table_sizes(database: str) -> dict[str, int]:
    """Bytes of each table with its indexes; SQLite's log is emptied into the file first."""
    engine = create_engine(database)
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        sizes = {table: int(size) for table, size in connection.execute(sa.text(TABLE_SIZES[engine.dialect.name]))}
    engine.dispose()
    return sizes


class Spent(NamedTuple):
    """Seconds of CPU time."""

    collector: float
    database: float
    """0 for SQLite, which is in the others."""
    here: float
    """Reader of a store in this process, or a client."""


@dataclass(frozen=True, slots=True)
class Site:
    """A store and its collector."""

    engine: sa.Engine
    url: str
    """URL of the collector."""
    process: int
    """Process id of the collector."""
    server: postgres.Server | None
    http: urllib3.PoolManager

    @property
    def database(self) -> str:
        """URL of the store."""
        return self.engine.url.render_as_string(hide_password=False)

    def get(self, path: str) -> bytes:
        return self.request("GET", f"{self.url}{path}")

    def post(self, path: str, body: bytes | object) -> None:
        """Post to the API; `body` may be encoded already."""
        self.request("POST", f"{self.url}{API}{path}", body if isinstance(body, bytes) else json.dumps(body).encode())

    def register(self, run: str, num_segments: int = 1) -> None:
        """Register a run with this many segments."""
        self.post("/runs", {"id": run, "project": "bench", "started_at": 0.0})
        for number in range(num_segments):
            segment = {"key": f"{number}", "fork_step": 0, "reason": "start", "opened_at": 0.0}
            self.post(f"/runs/{run}/segments", segment)

    def request(self, method: str, url: str, body: bytes | None = None) -> bytes:
        answer = self.http.request(method, url, body=body)
        if answer.status >= 300:
            raise RuntimeError(f"{method} {url} was answered {answer.status}: {answer.data[:300]!r}")
        return answer.data

    def spent(self) -> Spent:
        """CPU time so far."""
        database = 0.0 if self.server is None else cpu_seconds(self.server.process(), children=True)
        return Spent(cpu_seconds(self.process), database, time.process_time())

    def cost(self, call: Callable[[], object], before: Callable[[], object] | None = None) -> Spent:
        """Medians of the CPU time of repeated calls; `before` runs ahead of each of them and does not count."""
        call()
        each: list[Spent] = []
        while len(each) < MIN_CALLS or (len(each) < MAX_CALLS and sum(map(sum, each)) < ENOUGH_SECONDS):
            if before is not None:
                before()
            start = self.spent()
            call()
            each.append(Spent(*(now - then for now, then in zip(self.spent(), start, strict=True))))
        return Spent(*(statistics.median(column) for column in zip(*each, strict=True)))


@contextmanager
def site(
    place: Place,
    fill: Callable[[sa.Engine], object] = lambda engine: None,
    *,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Site]:
    """A new store, filled, and then its collector, with the token TOKEN."""
    with place.new_store() as database:
        engine = create_engine(database)
        try:
            fill(engine)
            if place.server is not None:  # autovacuum would do it within a minute, while the costs are measured
                with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
                    connection.exec_driver_sql("VACUUM (ANALYZE)")
            headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
            with (
                collector(database, LOSSGUARD_TOKEN=TOKEN, **(environment or {})) as (url, process),
                urllib3.PoolManager(maxsize=NUM_CONNECTIONS, retries=False, headers=headers) as http,
            ):
                yield Site(engine, url, process, place.server, http)
        finally:
            engine.dispose()


@contextmanager
def python_with(*packages: str) -> Iterator[Path]:
    """The interpreter of an environment with the packages; LOSSGUARD_BENCH_PEERS names a folder in which to keep it."""
    permanent = os.environ.get("LOSSGUARD_BENCH_PEERS")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(permanent or folder)
        python = home / "bin/python"
        if not python.exists():
            venv.create(home, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        yield python


def measured_by(command: Sequence[str | Path], **named: Any) -> list[str]:
    """Run a script, and return the words that it prints after "measured". Raises RuntimeError if it prints none."""
    ran: subprocess.CompletedProcess[str] = subprocess.run(
        command, capture_output=True, text=True, check=False, **named
    )
    for line in ran.stdout.splitlines():
        if line.startswith("measured "):
            return line.split(" ")[1:]
    raise RuntimeError(f"{command[0]} measured nothing: {ran.stderr.strip()[-500:]}")


@dataclass(frozen=True, slots=True)
class Sink:
    """A process that accepts all reports."""

    url: str

    def steps(self) -> set[int]:
        """All steps that arrived, of any run."""
        return set(json.loads(urllib3.request("GET", self.url).data))


@contextmanager
def sink() -> Iterator[Sink]:
    with subprocess.Popen([sys.executable, "-m", "benchmarks.harness"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Sink(process.stdout.readline().strip())
        finally:
            process.terminate()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet: two would wait for each other (Nagle, delayed acknowledgement)
    received: set[int] = set()  # noqa: RUF012 - one sink per process

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.received.update(body.get("steps", ()))
        self._answer({"segment": 0, "orders": []})

    do_PUT = do_POST

    def do_GET(self) -> None:
        self._answer(sorted(self.received))

    def log_message(self, format: str, *args: Any) -> None:
        return

    def _answer(self, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
