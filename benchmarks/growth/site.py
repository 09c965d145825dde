"""A store with its collector, and what a call costs there: CPU time, which other work on the machine hardly changes."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

import sqlalchemy as sa
import urllib3

from benchmarks.collectors import collector, exact_cpu_seconds
from benchmarks.growth.places import Place
from benchmarks.reports import TOKEN
from db.store.engine import create_engine
from lossguard.vocabulary.protocol import API
from tests import postgres

MIN_CALLS, MAX_CALLS = 5, 60
ENOUGH_SECONDS = 0.4
"""CPU time after which a cost is not measured any further."""


class Spent(NamedTuple):
    """Seconds of CPU time."""

    collector: float
    database: float
    """0 for SQLite, which is in the others."""
    here: float
    """In this process: the reader of a store, or a client."""


@dataclass(frozen=True, slots=True)
class Site:
    """A store and its collector."""

    engine: sa.Engine
    url: str
    """Of the collector."""
    process: int
    """Of the collector."""
    server: postgres.Server | None
    http: urllib3.PoolManager

    @property
    def database(self) -> str:
        """The URL of the store."""
        return self.engine.url.render_as_string(hide_password=False)

    def get(self, path: str) -> bytes:
        return self._request("GET", f"{self.url}{path}")

    def post(self, path: str, body: bytes | object) -> None:
        """To the API; `body` may be encoded already."""
        self._request("POST", f"{self.url}{API}{path}", body if isinstance(body, bytes) else json.dumps(body).encode())

    def register(self, run: str, num_segments: int = 1) -> None:
        """A new run with so many segments."""
        self.post("/runs", {"id": run, "project": "bench", "started_at": 0.0})
        for number in range(num_segments):
            segment = {"key": f"{number}", "fork_step": 0, "reason": "start", "opened_at": 0.0}
            self.post(f"/runs/{run}/segments", segment)

    def _request(self, method: str, url: str, body: bytes | None = None) -> bytes:
        answer = self.http.request(method, url, body=body)
        if answer.status >= 300:
            raise RuntimeError(f"{method} {url} was answered {answer.status}: {answer.data[:300]!r}")
        return answer.data

    def spent(self) -> Spent:
        """So far."""
        database = 0.0 if self.server is None else exact_cpu_seconds(self.server.process(), children=True)
        return Spent(exact_cpu_seconds(self.process), database, time.process_time())

    def cost(self, call: Callable[[], object], before: Callable[[], object] | None = None) -> Spent:
        """The medians of what repeated calls spend; `before` each of them something happens that does not count."""
        call()
        each: list[Spent] = []
        while len(each) < MIN_CALLS or (len(each) < MAX_CALLS and sum(map(sum, each)) < ENOUGH_SECONDS):
            if before is not None:
                before()
            start = self.spent()
            call()
            each.append(Spent(*(now - then for now, then in zip(self.spent(), start, strict=True))))
        return Spent(*(median(column) for column in zip(*each, strict=True)))


@contextmanager
def site(place: Place, fill: Callable[[sa.Engine], object], **settings: str) -> Iterator[Site]:
    """A new store, filled, and then its collector with these settings in its environment."""
    with place.new_store() as database:
        engine = create_engine(database)
        try:
            fill(engine)
            _analyse(engine)
            headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
            with (
                collector(database, code=None, **{"LOSSGUARD_TOKEN": TOKEN} | settings) as (url, process),
                urllib3.PoolManager(retries=False, headers=headers) as http,
            ):
                yield Site(engine, url, process, place.server, http)
        finally:
            engine.dispose()


def _analyse(engine: sa.Engine) -> None:
    """What autovacuum does within a minute, and would do while the costs are measured."""
    if engine.dialect.name == "postgresql":
        with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            connection.exec_driver_sql("VACUUM (ANALYZE)")
