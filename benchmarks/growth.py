"""Growth of each cost, as tables: by stored steps, runs, live runs, metrics and incidents, on SQLite and PostgreSQL.

    python -m benchmarks.growth                              all of it, and the sizing table: under ten minutes
    python -m benchmarks.growth --only steps runs            some of it
    python -m benchmarks.growth --only steps --large         also a run of 100 million steps (3 GB of disk)
    python -m benchmarks.growth --most 1000 --stores SQLite  only sizes up to 1,000; one database

Every size is a store of its own with a collector of its own. Costs are CPU time, of collector, database and reader
together: medians of repeated calls, which other work on the machine hardly changes. The needs of live runs are computed
from figures of the same run (`--only sizing`).
"""

import argparse
import math
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache, partial
from statistics import median

import numpy as np
import sqlalchemy as sa

from benchmarks import reports, sizing, stored_runs
from benchmarks.harness import DATABASES, SQLITE, TOKEN, Place, Site, Spent, place, rounded, site
from benchmarks.stored_runs import METRICS, POINTS
from db import commands, queries
from db.lineage import StepRange
from db.models import Incident
from db.steps.reader import read_blocks
from db.store.engine import writing
from lossguard import Client
from lossguard.vocabulary.protocol import API
from monitor.detection import DetectionEngine
from monitor.ingestion.columns import stored_rows
from monitor.ingestion.run_state import detection_state

FLAT_EXPONENT = 0.1
"""A cost is flat up to 1.26 times for ten times the size: repeated measurements on a shared machine differ as much."""
LOGARITHMIC_EXPONENT = 0.25
"""Exponent of 1.78 times for ten times the size."""
LINEAR_EXPONENTS = (0.75, 1.25)
SIZING = "sizing"
MILLION, NUM_REPORTS, NUM_SMALL_REPORTS = 1_000_000, 8, 100
LOAD_SECONDS = 4.0
"""Seconds for which the live runs report as fast as they can."""
LONG, SHORT = 100_000, 10_000
"""Steps of the measured run where its length does not change."""
LEARNED_STEPS, CHUNK = 1_000, 100_000
"""Steps that the saved state of its detection has seen, and steps of a transaction."""
LIST = f"{API}/overview?limit=50&archived=false"


class Growth(StrEnum):
    """The growth of a cost with a size, by the exponent of a power law."""

    FLAT = "flat"
    # at most FLAT_EXPONENT
    LOGARITHMIC = "logarithmic"
    # at most LOGARITHMIC_EXPONENT
    BELOW_LINEAR = "below linear"
    LINEAR = "linear"
    # between LINEAR_EXPONENTS
    ABOVE_LINEAR = "above linear"


@dataclass(frozen=True, slots=True)
class Curve:
    """A cost at several sizes."""

    cost: str
    store: str
    """Database on which it was measured."""
    unit: str
    values: Mapping[int, float]
    """Cost by size."""

    @property
    def per_tenfold(self) -> float:
        """Factor of the cost for a size ten times as large, as fitted over all sizes."""
        return float(10 ** exponent(self.values))

    @property
    def last_tenfold(self) -> float:
        """Exponent between the two largest sizes."""
        return float(10 ** exponent(dict(sorted(self.values.items())[-2:])))

    @property
    def growth(self) -> Growth:
        """The word for the larger of the two: a constant cost hides one that grows until that is the larger part."""
        return growth_of(float(np.log10(max(self.per_tenfold, self.last_tenfold))))


def exponent(values: Mapping[int, float]) -> float:
    """Fit a power law to costs by size, as least squares of their logarithms.

    A size of 0 has no logarithm and is left out. Raises ValueError with fewer than two other sizes, or a cost of 0.
    """
    points = [(size, cost) for size, cost in values.items() if size > 0]
    if len(points) < 2:
        raise ValueError(f"the growth of a cost needs two sizes above 0; these are {sorted(values)}")
    if any(cost <= 0 for _, cost in points):
        raise ValueError(f"the growth of a cost needs costs above 0; these are {[cost for _, cost in points]}")
    sizes, costs = np.log10(np.array(points)).T
    return float(np.polyfit(sizes, costs, 1)[0])


def growth_of(power: float) -> Growth:
    """Return the word for a cost that grows with this exponent; one that falls is flat."""
    limits = (FLAT_EXPONENT, LOGARITHMIC_EXPONENT, *LINEAR_EXPONENTS)
    return list(Growth)[int(np.searchsorted(limits, power))]


def lines(name: str, sizes: Sequence[int], curves: Iterable[Curve]) -> Iterator[str]:
    """The curves of an axis as a Markdown table, in the format of docs/scale.md. `name`: what the sizes count."""
    yield f"| {name} | store | " + " | ".join(f"{size:,}" for size in sizes) + " | for ten times as many | growth |"
    yield "|---|---|" + "---|" * len(sizes) + "---|---|"
    for curve in curves:
        values = " | ".join(f"{rounded(curve.values[size])} {curve.unit}" for size in sizes)
        factors = f"x {curve.per_tenfold:.2f}, at last x {curve.last_tenfold:.2f}"
        yield f"| {curve.cost} | {curve.store} | {values} | {factors} | {curve.growth} |"


@dataclass(slots=True)
class Subject:
    """The run whose costs are measured: it was rolled back once, and reports."""

    length: int
    """Steps that it had when it was stored."""
    num_metrics: int = len(METRICS)
    """Metrics of a report: the standard ones, then custom ones."""
    num_live: int = 1
    """Live runs of its store."""
    next_step: int = field(init=False)
    noise: random.Random = field(default_factory=lambda: random.Random(0))

    def __post_init__(self) -> None:
        self.next_step = self.length

    @property
    def run(self) -> str:
        """Id of the run."""
        return f"run-{self.length}"

    @property
    def custom_metrics(self) -> list[str]:
        return [f"layer/{number}" for number in range(self.num_metrics - len(METRICS))]

    def report(self, size: int) -> bytes:
        """Return the body of its next report, of `size` steps."""
        steps = range(self.next_step, self.next_step + size)
        self.next_step += size
        return stored_runs.report(self.noise, steps, segment=1, more=self.custom_metrics)

    def write(self, engine: sa.Engine, *, all_metrics: bool = True) -> None:
        """Store its steps, with loss and lr or all metrics, and the state of its detection."""
        metrics = (*METRICS, *self.custom_metrics) if all_metrics else ("loss", "lr")
        stored_runs.write_long(engine, self.run, self.length, metrics, chunk=CHUNK)
        with writing(engine) as session:
            run = commands.lock_run(session, run_id=self.run)
            assert run is not None
            run.last_report_at = run.started_at = time.time()
            segment, watching = queries.newest_segment(session, run=run), DetectionEngine()
            seen = StepRange(1, self.length - LEARNED_STEPS, self.length)
            for block in read_blocks(session, run_pk=run.pk, step_range=seen, metrics=["loss"]):
                watching.feed(stored_rows(block))
            detection_state.save(session, run, watching, [], segment=segment, now=time.time())

    def add_incidents(self, engine: sa.Engine, count: int) -> None:
        """Store closed incidents, evenly spread over its steps."""
        now, onsets = time.time(), np.linspace(0, self.length - 10, count).astype(int).tolist()
        details = {"peak_value": 9.0, "expected": 3.0, "scale": 0.03, "reasons": ["The loss rose for 3 steps."]}
        with writing(engine) as session:
            run = queries.run_named(session, run_id=self.run)
            assert run is not None
            rows = [
                {
                    "run_pk": run.pk, "number": number, "segment": int(onset >= self.length // 2), "signal": "loss",
                    "kind": "loss_spike", "state": "closed", "onset_step": onset, "detected_step": onset + 2,
                    "peak_step": onset + 3, "end_step": onset + 6, "score": 3.0 + number % 50, "details": details,
                    "outcome": "recovered", "opened_at": now, "changed_at": now,
                }
                for number, onset in enumerate(onsets, 1)
            ]  # fmt: skip
            if rows:
                session.execute(sa.insert(Incident), rows)


Measure = Callable[[Site, Subject], float]


@dataclass(frozen=True, slots=True)
class Cost:
    """Something to measure at a site, in milliseconds or microseconds of CPU time."""

    name: str
    unit: str
    measure: Measure
    stores: tuple[str, ...] = DATABASES
    """Databases between which it could differ."""


def per_step(at: Site, subject: Subject) -> float:
    """Microseconds for a step of a large report."""
    return _per_report(at, subject, NUM_REPORTS, reports.SIZE) / reports.SIZE


def per_report(at: Site, subject: Subject) -> float:
    """Microseconds for a report of one step, alone in its transaction."""
    return _per_report(at, subject, NUM_SMALL_REPORTS, 1)


def _per_report(at: Site, subject: Subject, count: int, size: int) -> float:
    """Median microseconds of all reports but the first, with which the collector learns to know the run."""
    path, each = f"/runs/{subject.run}/reports", []
    for body in [subject.report(size) for _ in range(count)]:
        start = at.spent()
        at.post(path, body)
        each.append(sum(at.spent()[:2]) - sum(start[:2]))
    return 1e6 * median(each[1:])


def overview(at: Site, subject: Subject) -> float:
    return _of_reader(at.cost(lambda: stored_runs.read_loss(at.engine, subject.run)))


def zoom(at: Site, subject: Subject) -> float:
    first = subject.length // 2
    return _of_reader(at.cost(lambda: stored_runs.read_loss(at.engine, subject.run, first, first + POINTS - 1)))


def _of_reader(spent: Spent) -> float:
    return 1e3 * (spent.here + spent.database)


def frame(at: Site, subject: Subject) -> float:
    """Milliseconds for a million steps: of the first million of them, or of all if the run is shorter."""
    num_steps = min(subject.length, MILLION)
    with Client(at.url, token=TOKEN, timeout=120) as client:
        run = client.run(subject.run)
        spent = at.cost(lambda: run.frame("loss", steps=(0, num_steps)))
    return 1e3 * sum(spent) * MILLION / num_steps


def _answer_ms(at: Site, path: str, before: Callable[[], object] | None = None) -> float:
    """Milliseconds of collector and database for a request."""
    spent = at.cost(lambda: at.get(path), before)
    return 1e3 * (spent.collector + spent.database)


def _answer(path: str) -> Measure:
    return lambda at, _: _answer_ms(at, path)


def _scrape_of_all(at: Site, _: Subject) -> float:
    """Milliseconds, when all live runs have reported since the last scrape."""
    return _answer_ms(at, "/metrics", lambda: stored_runs.let_all_report(at.engine))


def _report_among_all(at: Site, live: Subject) -> float:
    """Microseconds for a report of one step while so many new runs report at once."""
    return 1e6 * reports.apply(reports.Load(LOAD_SECONDS, live.num_live), at)


READER = """
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
"""A process that has imported the dashboard once, which takes longer than what is measured: every measurement is a copy
of it, in which nothing is cached."""


@cache
def _reader() -> subprocess.Popen[str]:
    """Start that process; it ends with this one."""
    pipe, command = subprocess.PIPE, [sys.executable, "-c", READER]
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)


def _read_by_dashboard(what: str) -> Measure:
    """Milliseconds of the `document` of a run as HTML, or of the `facts` that the Run page reads, in a new process."""

    def measure(at: Site, subject: Subject) -> float:
        process = _reader()
        assert process.stdin is not None
        assert process.stdout is not None
        print(at.database, subject.run, what, file=process.stdin, flush=True)
        seconds = float(process.stdout.readline() or "nan")
        if math.isnan(seconds):
            raise RuntimeError(f"the {what} of {subject.run} could not be made from {at.database}")
        return 1e3 * seconds

    return measure


PER_STEP = Cost("ingestion, a step in reports of 1,000", "us", per_step)
PER_VALUE = Cost("ingestion, a value in them", "us", lambda at, subject: per_step(at, subject) / subject.num_metrics)
PER_REPORT = Cost("ingestion, one report of one step", "us", per_report)
OVERVIEW = Cost("overview of the loss", "ms", overview)
ZOOM = Cost("zoom to 1,500 steps", "ms", zoom)
FRAME = Cost("frame of the loss, a million steps", "ms", frame)
PAGE = Cost("list, a page of 50 runs", "ms", _answer(LIST))
ATTENTION = Cost("list, those that need a person first", "ms", _answer(f"{LIST}&sort=attention"))
SCORECARD = Cost("scorecard of all runs", "ms", _answer(f"{API}/scorecard"))
WORDS = Cost("list, search for words", "ms", _answer(f"{LIST}&search=sweep%2077"))
SETTING = Cost("list, search for a setting", "ms", _answer(f"{LIST}&search=lr%3E1e-2"))
SCRAPE = Cost("scrape of /metrics", "ms", _answer("/metrics"))
SCRAPE_OF_ALL = Cost("scrape of /metrics, all runs have reported", "ms", _scrape_of_all)
REPORT_AMONG_ALL = Cost("ingestion, the same beside all live runs", "us", _report_among_all)
FACTS = Cost("what the Run page reads first", "ms", _read_by_dashboard("facts"), (SQLITE,))
DOCUMENT = Cost("report of the run (HTML)", "ms", _read_by_dashboard("document"), (SQLITE,))


@dataclass(frozen=True, slots=True)
class Axis:
    """A size along which costs may grow."""

    name: str
    sizes: Sequence[int]
    fill: Callable[[sa.Engine, int], Subject]
    """Make a store of that size."""
    costs: Sequence[Cost]
    large: Sequence[int] = ()
    """Sizes that take long, and are measured when they are asked for."""
    settings: Callable[[int], dict[str, str]] = lambda size: {}
    """Settings of the collector."""


def curves(axis: Axis, where: Place, sizes: Sequence[int]) -> Iterator[Curve]:
    """Measure each cost of the axis at these sizes: reads first, because ingestion makes the run longer."""
    costs, measured = [cost for cost in axis.costs if where.name in cost.stores], {}
    for size in sizes:
        filled: list[Subject] = []
        with site(where, lambda engine: filled.append(axis.fill(engine, size)), environment=axis.settings(size)) as at:  # noqa: B023
            measured[size] = {cost.name: cost.measure(at, filled[0]) for cost in costs}
    for cost in costs:
        yield Curve(cost.name, where.name, cost.unit, {size: found[cost.name] for size, found in measured.items()})


def _of_length(engine: sa.Engine, length: int) -> Subject:
    """Store a run with two metrics: charts and frames read one."""
    subject = Subject(length)
    subject.write(engine, all_metrics=False)
    return subject


def _among_runs(engine: sa.Engine, count: int, *, live: int = 0) -> Subject:
    """Store runs, of which `live` are live; by default all of them."""
    stored_runs.write_many(engine, count, live=live or count)
    subject = _of_length(engine, SHORT)
    subject.num_live = live or count
    return subject


def _with_metrics(engine: sa.Engine, count: int) -> Subject:
    subject = Subject(LONG, count)
    subject.write(engine)
    return subject


def _with_incidents(engine: sa.Engine, count: int) -> Subject:
    subject = _of_length(engine, LONG)
    subject.add_incidents(engine, count)
    return subject


RUN_COSTS = (PAGE, SCRAPE, FACTS, DOCUMENT, PER_STEP, PER_REPORT)
SWEEP_COSTS = (
    OVERVIEW, ZOOM, PAGE, ATTENTION, WORDS, SETTING, SCORECARD, SCRAPE, PER_STEP, PER_REPORT,
)  # fmt: skip
LIVE_COSTS = (SCRAPE_OF_ALL, PAGE, ATTENTION, PER_STEP, REPORT_AMONG_ALL)
METRIC_COSTS = (PER_STEP, PER_VALUE, PER_REPORT, OVERVIEW, ZOOM, FRAME, PAGE, SCRAPE, FACTS, DOCUMENT)
AXES = {
    "steps": Axis(
        "stored steps of a run", (10_000, 100_000, 1_000_000, 10_000_000), _of_length,
        (OVERVIEW, ZOOM, FRAME, *RUN_COSTS), large=(100_000_000,),
    ),
    "runs": Axis("stored runs", (10, 100, 1_000, 10_000), partial(_among_runs, live=1), SWEEP_COSTS),
    "live-runs": Axis("live runs", (1, 10, 100, 1_000), _among_runs, LIVE_COSTS, settings=reports.settings),
    "metrics": Axis("metrics of a run", (8, 32, 128, 500), _with_metrics, METRIC_COSTS),
    "incidents": Axis(
        "incidents of a run", (0, 10, 100, 1_000, 10_000), _with_incidents, (OVERVIEW, ATTENTION, *RUN_COSTS)
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[*AXES, SIZING], default=[*AXES, SIZING])
    parser.add_argument("--stores", nargs="+", choices=DATABASES, default=list(DATABASES))
    parser.add_argument("--most", type=int, metavar="SIZE", help="leave larger sizes out")
    parser.add_argument("--large", action="store_true", help="also a run of 100 million steps")
    chosen = parser.parse_args()
    sizes = {name: _sizes(axis, chosen.most, chosen.large) for name, axis in AXES.items() if name in chosen.only}
    for name, some in sizes.items():
        if sum(size > 0 for size in some) < 2:
            parser.error(f"--most {chosen.most} leaves fewer than two sizes of {name} above 0, so no growth: raise it")
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}", flush=True)
    for name, some in sizes.items():
        _print(_table(AXES[name], chosen.stores, some))
    if SIZING in chosen.only:
        _print(sizing.tables(chosen.stores))


def _sizes(axis: Axis, most: int | None, large: bool) -> list[int]:
    sizes = [*axis.sizes, *(axis.large if large else ())]
    return [size for size in sizes if size <= (most or size)]


def _table(axis: Axis, stores: Sequence[str], sizes: Sequence[int]) -> Iterator[str]:
    found: list[Curve] = []
    for name in stores:
        with place(name) as where:
            found += curves(axis, where, sizes)
    order = [cost.name for cost in axis.costs]
    yield from lines(axis.name, sizes, sorted(found, key=lambda curve: order.index(curve.cost)))


def _print(table: Iterator[str]) -> None:
    began = time.monotonic()
    print(flush=True)
    for line in table:
        print(line, flush=True)
    print(f"\n({time.monotonic() - began:.0f} s, load {os.getloadavg()[0]:.1f})", flush=True)


if __name__ == "__main__":
    main()
