"""Lists of runs over HTTP by the number of runs: pages, filters and searches, and all runs at once as before pages.

    python -m benchmarks.run_list [--runs 10 1000 10000] [--postgresql] [--mlflow]

A collector process, one connection, medians of 9 requests. The load of the machine decides the milliseconds: beside
them stand the CPU time of the collector (not of PostgreSQL) for a request, and the ratio to the smallest number of
runs. `all at once` is what every list cost before there were pages. `--mlflow`: also the searches of MLflow's own
store, whose runs are written through its client (1,000 take about a minute).
"""

import argparse
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from urllib.parse import quote

import urllib3

from benchmarks import many_runs
from benchmarks.collectors import collector, cpu_seconds
from benchmarks.peers import python_with
from benchmarks.rows import Row, print_rows
from benchmarks.scrape import database
from db import migrate
from db.store.engine import create_engine
from lossguard.vocabulary.protocol import API

Ask = Callable[[], int]
REQUESTS = 9
PAGE_MS, SEARCH_MS = 100.0, 300.0
PAGES = {
    "page of 50, newest first": "overview?limit=50&archived=false",
    "page of 50, three fields": "runs?limit=50&archived=false&fields=id,name,state",
    "page of 50, those that need a person first": "overview?limit=50&archived=false&sort=attention",
    "page of 50 of a project": "overview?limit=50&archived=false&project=project-3",
    "page of 50 with a tag": "overview?limit=50&archived=false&tag=set-3",
}
SEARCHES = ("sweep 77", "lr>1e-2", "width=512 state:finished", "loss<2.1", "note:odd waiting>0", "unheard_of=1")


def measure(counts: Sequence[int], *, is_postgresql: bool, with_mlflow: bool) -> Iterator[Row]:
    smallest: dict[str, float] = {}
    for count in counts:
        with database(is_postgresql=is_postgresql) as url:
            engine = create_engine(url)
            migrate.upgrade(engine)
            many_runs.fill(engine, count, live=max(1, count // 10))
            with collector(url) as (address, process), urllib3.PoolManager(retries=False) as http:
                for name, ask, target in _lists(http, f"{address}{API}", count):
                    took, used, size = _timed(ask, process)
                    ratio = took / smallest.setdefault(name, took)
                    load = f"load {os.getloadavg()[0]:.1f}"
                    comparison = (
                        f"{used:.0f} ms of CPU time; {size / 1e3:,.0f} kB; {ratio:.1f} times the smallest; {load}"
                    )
                    yield Row(f"{name}, {count:,} runs, {engine.dialect.name}", took, "ms", target, comparison)
            engine.dispose()
        if with_mlflow:
            yield from _mlflow(count)


def _lists(http: urllib3.PoolManager, url: str, count: int) -> Iterator[tuple[str, Ask, float | None]]:
    """(name, what asks once and returns the bytes of the answer, target in milliseconds)."""
    for name, path in PAGES.items():
        yield name, partial(_get, http, f"{url}/{path}"), PAGE_MS
    deep = _last_page(http, f"{url}/overview", count)
    yield "page of 50 behind nine tenths of the list", partial(_get, http, deep), PAGE_MS
    for text in SEARCHES:
        path = f"{url}/overview?limit=50&archived=false&search={quote(text)}"
        yield f"search {text}", partial(_get, http, path), SEARCH_MS
    yield "all at once", partial(_get, http, f"{url}/runs"), None


def _last_page(http: urllib3.PoolManager, url: str, count: int) -> str:
    """The address of the page behind nine tenths of the runs."""
    following, seen = f"{url}?limit=50&fields=id", 0
    while seen + 50 < 0.9 * count:
        link = http.request("GET", following).headers["link"]
        following, seen = url + link.partition("<")[2].partition(">")[0], seen + 50
    return following.replace("&fields=id", "")


def _get(http: urllib3.PoolManager, url: str) -> int:
    answer = http.request("GET", url)
    assert answer.status == 200, answer.data
    return len(answer.data)


def _timed(ask: Ask, process: int) -> tuple[float, float, int]:
    """Median milliseconds, those of the collector's CPU, and bytes."""
    took, size, before = [], 0, cpu_seconds(process)
    for _ in range(REQUESTS):
        began = time.perf_counter()
        size = ask()
        took.append(1e3 * (time.perf_counter() - began))
    return median(took), 1e3 * (cpu_seconds(process) - before) / REQUESTS, size


MLFLOW = """
import sys, time
from statistics import median
from mlflow.tracking import MlflowClient
from mlflow.entities import Param, RunTag, Metric

store, count = sys.argv[1], int(sys.argv[2])
client = MlflowClient(tracking_uri=store)
number = client.create_experiment("sweep")
for place in range(count):
    run = client.create_run(number, run_name=f"sweep {place}")
    params = [Param(f"size_{name}", str(place % 7)) for name in range(15)] + [Param("lr", str(10.0 ** -(place % 5)))]
    client.log_batch(run.info.run_id, params=params, tags=[RunTag("set", str(place % 20))],
                     metrics=[Metric("loss", 2.0 + place % 100 / 50, 0, 199)])
for name, text in (("page of 50", ""), ("search metrics.loss < 2.1", "metrics.loss < 2.1"),
                   ("search params.lr = '0.01'", "params.lr = '0.01'")):
    took = []
    for _ in range(9):
        began = time.perf_counter()
        client.search_runs([number], text, max_results=50)
        took.append(1e3 * (time.perf_counter() - began))
    print(f"{name}\\t{median(took)}", flush=True)
"""


@contextmanager
def _mlflow_store() -> Iterator[tuple[Path, str]]:
    with python_with("mlflow-skinny", "sqlalchemy", "alembic", "pandas") as python, TemporaryDirectory() as folder:
        yield python, f"sqlite:///{folder}/mlflow.db"


def _mlflow(count: int) -> Iterator[Row]:
    """MLflow's own store in this process: what its server does for a request, without HTTP."""
    with _mlflow_store() as (python, store):
        command = [str(python), "-c", MLFLOW, store, str(count)]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
    for line in ran.stdout.splitlines():
        name, took = line.split("\t")
        yield Row(
            f"mlflow, {name}, {count:,} runs, sqlite", float(took), "ms", None, "in its own process, without HTTP"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[10, 1000, 10_000])
    parser.add_argument("--postgresql", action="store_true")
    parser.add_argument("--mlflow", action="store_true", help="also measure MLflow, installed into a temporary folder")
    chosen = parser.parse_args()
    print_rows(measure(chosen.runs, is_postgresql=chosen.postgresql, with_mlflow=chosen.mlflow))
