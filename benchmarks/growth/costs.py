"""The costs that are measured of a run and its store, each in milliseconds or microseconds of CPU time.

Database and collector count together, and this process where it reads the store itself as the dashboard does.
"""

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from statistics import median

from benchmarks import store
from benchmarks.growth.places import NAMES, SQLITE
from benchmarks.growth.site import Site
from benchmarks.growth.subject import Subject
from benchmarks.reports import TOKEN
from lossguard import Client
from lossguard.vocabulary.protocol import API

MANY, NUM_REPORTS = 1_000, 8
MILLION = 1_000_000
LIST = f"{API}/overview?limit=50&archived=false"


@dataclass(frozen=True, slots=True)
class Cost:
    """Something to measure at a site."""

    name: str
    unit: str
    measure: Callable[[Site, Subject], float]
    """The value in `unit`."""
    stores: tuple[str, ...] = NAMES
    """Databases between which it could differ."""


def per_step(site: Site, subject: Subject) -> float:
    """Microseconds for a step of a report of MANY."""
    bodies = [subject.report(MANY) for _ in range(NUM_REPORTS)]
    return 1e6 * _ingestion(site, subject, bodies) / MANY


def per_value(site: Site, subject: Subject) -> float:
    """Microseconds for a value of such a step."""
    return per_step(site, subject) / subject.num_metrics


def per_report(site: Site, subject: Subject) -> float:
    """Microseconds for a report of one step, alone in its transaction."""
    return 1e6 * _ingestion(site, subject, [subject.report(1) for _ in range(100)])


def _ingestion(site: Site, subject: Subject, bodies: list[bytes]) -> float:
    """The median seconds of one of the reports but the first, with which the collector learns to know the run."""
    path, waiting = f"/runs/{subject.run}/reports", iter(bodies)
    site.post(path, next(waiting))
    each = []
    for body in waiting:
        start = site.spent()
        site.post(path, body)
        spent = site.spent()
        each.append(spent.collector + spent.database - start.collector - start.database)
    return median(each)


def overview(site: Site, subject: Subject) -> float:
    spent = site.cost(lambda: store.ask(site.engine, subject.length))
    return 1e3 * (spent.here + spent.database)


def zoom(site: Site, subject: Subject) -> float:
    middle = subject.length // 2
    spent = site.cost(lambda: store.ask(site.engine, subject.length, middle, middle + store.POINTS - 1))
    return 1e3 * (spent.here + spent.database)


def frame(site: Site, subject: Subject) -> float:
    """Milliseconds for a million steps: of the first million of them, or of all if the run is shorter."""
    num_steps = min(subject.length, MILLION)
    with Client(site.url, token=TOKEN, timeout=120) as client:
        run = client.run(subject.run)
        spent = site.cost(lambda: run.frame("loss", steps=(0, num_steps)))
    return 1e3 * sum(spent) * MILLION / num_steps


def answer(path: str) -> Callable[[Site, Subject], float]:
    """Milliseconds for a request."""

    def measure(site: Site, subject: Subject) -> float:
        spent = site.cost(lambda: site.get(path))
        return 1e3 * (spent.collector + spent.database)

    return measure


REPORTS = """
import os, sys, time
from datetime import UTC
from dashboard.data import cached
from dashboard.report import contents, document
for line in sys.stdin:
    database, run, what = line.split()
    if os.fork():
        if os.wait()[1]:
            print("nan", flush=True)
        continue
    os.environ["LOSSGUARD_DATABASE_URL"] = database
    began = time.process_time()
    if what == "facts":
        cached.facts(run)
    else:
        read = contents.read_contents(run, now=time.time(), zone=UTC)
        document.render(read, contents.read_incidents(read.facts, read.limits))
    print(time.process_time() - began, flush=True)
    os._exit(0)
"""
"""Of a process that has imported the dashboard once, which takes longer than what is measured: every measurement is a
copy of it, in which nothing is cached."""


@cache
def _reports() -> subprocess.Popen[str]:
    """That process; it ends with this one."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", REPORTS]
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)


def report(what: str) -> Callable[[Site, Subject], float]:
    """Milliseconds of the `document` of a run as HTML, or of the `facts` that the Run page reads, in a new process."""

    def measure(site: Site, subject: Subject) -> float:
        process = _reports()
        assert process.stdin is not None
        assert process.stdout is not None
        print(site.database, subject.run, what, file=process.stdin, flush=True)
        seconds = float(process.stdout.readline() or "nan")
        if math.isnan(seconds):
            raise RuntimeError(f"the {what} of {subject.run} could not be made from {site.database}")
        return 1e3 * seconds

    return measure


PER_STEP = Cost("ingestion, a step in reports of 1,000", "us", per_step)
PER_VALUE = Cost("ingestion, a value in them", "us", per_value)
PER_REPORT = Cost("ingestion, one report of one step", "us", per_report)
OVERVIEW = Cost("overview of the loss", "ms", overview)
ZOOM = Cost("zoom to 1,500 steps", "ms", zoom)
FRAME = Cost("frame of the loss, a million steps", "ms", frame)
PAGE = Cost("list, a page of 50 runs", "ms", answer(LIST))
ATTENTION = Cost("list, those that need a person first", "ms", answer(f"{LIST}&sort=attention"))
SCORECARD = Cost("scorecard of all runs", "ms", answer(f"{API}/scorecard"))
WORDS = Cost("list, search for words", "ms", answer(f"{LIST}&search=sweep%2077"))
SETTING = Cost("list, search for a setting", "ms", answer(f"{LIST}&search=lr%3E1e-2"))
SCRAPE = Cost("scrape of /metrics", "ms", answer("/metrics"))
FACTS = Cost("what the Run page reads first", "ms", report("facts"), (SQLITE,))
DOCUMENT = Cost("report of the run (HTML)", "ms", report("document"), (SQLITE,))
