"""Needs of live runs for collectors, database and scrapes: measured costs, and a table computed from them."""

import math
import random
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields

from benchmarks import reports, stored_runs
from benchmarks.harness import Place, Site, Spent, memory_mib, place, site, table_sizes
from lossguard.delivery.sender import PAUSE_SECONDS
from tests.dashboard.browser import chromium, dashboard
from tests.dashboard.serving import Served

SHARE = 0.5
"""Of each core; the other half is for backlogs, charts and restarts."""
SCRAPE_SHARE = 0.02
"""Of a core, for Prometheus."""
SCRAPE_SECONDS = (15, 30, 60, 120, 300)
MONTH_SECONDS = 30 * 86_400
ROOM = 2.0
"""Times the memory that is used."""
MIN_MEMORY_MIB, MEMORY_STEP_MIB = 512, 256
DATABASE_BASE_GIB = 1.0
"""For connections, caches and everything that does not grow with live runs."""
LIVE_RUNS, STEP_RATES = (10, 100, 1_000), (1.0, 10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The measurements. CPU time is of one core; that of a database within the collector counts there."""

    report_us: float
    """The collector's, for a report of one step while many runs report."""
    report_database_us: float
    step_us: float
    """The collector's, for each further step of a report."""
    step_database_us: float
    step_bytes: float
    """Of a stored step with 8 metrics, everything included."""
    live_run_kib: float
    """Of the store, for a run with some hundred steps that are not in blocks yet: what its reports touch."""
    collector_mib: float
    """Memory of a collector without runs."""
    collector_run_kib: float
    """More for each live run."""
    scrape_run_ms: float
    """The collector's CPU time of a scrape, for each live run."""
    open_page_ms: float | None
    """The dashboard's CPU time for a minute of an open Run page of a run that steps once a second."""


@dataclass(frozen=True, slots=True)
class Needs:
    """The needs of this many live runs."""

    reports_per_second: float
    collector_cores: float
    """That are used; `collectors` leave the rest in reserve."""
    collectors: int
    collector_mib: int
    """Memory of each."""
    database_cores: float
    database_gib: float
    """Memory."""
    disk_gb_month: float
    scrape_seconds: int
    pages_per_core: int | None
    """Open pages that a core of the dashboard serves; None where that was not measured."""


def needs(figures: Figures, *, live_runs: int, steps_per_second: float) -> Needs:
    """Compute them for runs of this many steps a second each. Raises ValueError below 0 of either."""
    if live_runs < 0 or steps_per_second < 0:
        raise ValueError(f"{live_runs} live runs at {steps_per_second} steps a second: neither may be negative")
    steps = live_runs * steps_per_second
    reports = live_runs * min(steps_per_second, 1 / PAUSE_SECONDS)
    further = steps - reports
    cores = 1e-6 * (reports * figures.report_us + further * figures.step_us)
    memory = figures.collector_mib + live_runs * figures.collector_run_kib / 1024
    return Needs(
        reports_per_second=reports,
        collector_cores=cores,
        collectors=max(1, math.ceil(cores / SHARE)),
        collector_mib=max(MIN_MEMORY_MIB, math.ceil(ROOM * memory / MEMORY_STEP_MIB) * MEMORY_STEP_MIB),
        database_cores=1e-6 * (reports * figures.report_database_us + further * figures.step_database_us) / SHARE,
        database_gib=DATABASE_BASE_GIB + ROOM * live_runs * figures.live_run_kib / 2**20,
        disk_gb_month=steps * figures.step_bytes * MONTH_SECONDS / 1e9,
        scrape_seconds=scrape_interval(1e-3 * live_runs * figures.scrape_run_ms),
        pages_per_core=None if figures.open_page_ms is None else int(SHARE * 60_000 / figures.open_page_ms),
    )


def scrape_interval(cpu_seconds: float) -> int:
    """The shortest usual interval at which scrapes of so much CPU time take SCRAPE_SHARE of a core at most."""
    return next((seconds for seconds in SCRAPE_SECONDS if cpu_seconds <= SCRAPE_SHARE * seconds), SCRAPE_SECONDS[-1])


def described(figures: Figures) -> str:
    """The figures in one line."""
    values = {field.name: getattr(figures, field.name) for field in fields(figures)}
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items() if value is not None)


def lines(figures: Figures, *, one_writer: bool) -> Iterator[str]:
    """A Markdown table. `one_writer`: of a database that gains nothing from a second collector."""
    yield (
        "| runs, steps/s | reports/s | collectors (cores used) | memory of each "
        "| database cores | memory | disk a month | scraped every | pages |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for rate in STEP_RATES:
        for count in LIVE_RUNS:
            yield _line(count, rate, needs(figures, live_runs=count, steps_per_second=rate), one_writer)


def _line(count: int, rate: float, need: Needs, one_writer: bool) -> str:
    collectors = f"{need.collectors}" if need.collectors == 1 or not one_writer else "too much for SQLite"
    database = "in the collector" if one_writer else f"{need.database_cores:.1f}"
    memory = "in the collector" if one_writer else f"{need.database_gib:.1f} GiB"
    return (
        f"| {count:,}, {rate:g} | {need.reports_per_second:,.0f} | {collectors} ({need.collector_cores:.2f}) | "
        f"{need.collector_mib} MiB | {database} | {memory} | {need.disk_gb_month:,.0f} GB | {need.scrape_seconds} s | "
        f"{need.pages_per_core or 'not measured'} |"
    )


NUM_REPORTS, NUM_RUNS, LOAD_SECONDS = 50, 200, 10.0
"""Large reports after which a step is weighed; runs that report at once, and for how long."""
NUM_ROWS, FIRST_ROW = 300, 1_000_000
"""Further steps of each that are not in blocks yet, of 511 at most; the first is behind all those of the load."""
NUM_SCRAPED, LENGTH, IDLE_SECONDS = 1_000, 10_000, 20.0
"""Live runs of a scrape; steps of the run of an open page, and for how long it is open."""


def tables(stores: Sequence[str]) -> Iterator[str]:
    """The figures of each database, and the table of what live runs need."""
    for name in stores:
        with place(name) as where:
            figures = measure(where)
            yield from ("", f"{name}, measured: {described(figures)}", "")
            yield from lines(figures, one_writer=where.server is None)


def measure(where: Place) -> Figures:
    """Measure the figures of a database."""
    step, step_bytes = _step(where)
    report, live_run_kib, idle_mib, run_kib = _live_runs(where)
    return Figures(
        report_us=1e6 * report.collector,
        report_database_us=1e6 * report.database,
        step_us=1e6 * step.collector,
        step_database_us=1e6 * step.database,
        step_bytes=step_bytes,
        live_run_kib=live_run_kib,
        collector_mib=idle_mib,
        collector_run_kib=run_kib,
        scrape_run_ms=_scrape(where),
        open_page_ms=_open_page(where) if shutil.which("chromium") else None,
    )


def _step(where: Place) -> tuple[Spent, float]:
    """Measure the cost of a step in large reports, and its bytes in the store."""
    noise, size = random.Random(0), reports.SIZE
    with site(where) as at:
        at.register("r", 2)
        before, start = sum(table_sizes(at.database).values()), at.spent()
        for number in range(NUM_REPORTS):
            steps = range(number * size, (number + 1) * size)
            at.post("/runs/r/reports", stored_runs.report(noise, steps, segment=1))
        used, grown = at.spent(), sum(table_sizes(at.database).values()) - before
    num_steps = NUM_REPORTS * size
    return Spent(*((now - then) / num_steps for now, then in zip(used, start, strict=True))), grown / num_steps


def _live_runs(where: Place) -> tuple[Spent, float, float, float]:
    """(what a report of one step costs, KiB of a live run in the store, MiB of a collector at rest, KiB for a run)"""
    with site(where, environment=reports.settings(NUM_RUNS)) as at:
        idle, before = memory_mib(at.process, "VmRSS"), sum(table_sizes(at.database).values())
        load = reports.Load(LOAD_SECONDS, NUM_RUNS)
        reports.apply(load, at)
        for number in range(NUM_RUNS):
            rows = stored_runs.report(random.Random(number), range(FIRST_ROW, FIRST_ROW + NUM_ROWS))
            at.post(f"/runs/r{number}/reports", rows)
        grown = sum(table_sizes(at.database).values()) - before
        held = memory_mib(at.process, "VmRSS") - idle
    each = {who: seconds / load.num_acknowledged for who, seconds in load.used.items()}
    report = Spent(each["collectors"], each.get("database", 0.0), each["client"])
    return report, grown / 1024 / NUM_RUNS, idle, max(0.0, held) * 1024 / NUM_RUNS


def _scrape(where: Place) -> float:
    """Milliseconds of the collector for a live run, all of which have reported since the last scrape."""
    with site(where, lambda engine: stored_runs.write_many(engine, NUM_SCRAPED, live=NUM_SCRAPED)) as at:
        spent = at.cost(lambda: at.get("/metrics"), before=lambda: stored_runs.let_all_report(at.engine))
    return 1e3 * spent.collector / NUM_SCRAPED


def _open_page(where: Place) -> float:
    """Milliseconds of the dashboard for a minute of a Run page."""
    with (
        site(where, lambda engine: stored_runs.write_long(engine, "r", LENGTH)) as at,
        dashboard(at.database) as served,
        chromium() as browser,
        _reporting(at),
    ):
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(f"{served.url}/run?run=r")
        page.wait_for_selector("[data-testid=stMetricValue]", timeout=120_000)
        return idle_ms(served)


def idle_ms(served: Served) -> float:
    """Milliseconds of CPU time that an open page costs the dashboard in a minute, without its first seconds."""
    time.sleep(3.0)
    began = served.cpu_ms()
    time.sleep(IDLE_SECONDS)
    return (served.cpu_ms() - began) * 60.0 / IDLE_SECONDS


@contextmanager
def _reporting(at: Site) -> Iterator[None]:
    """Let the run report a step a second during the block."""
    end, noise = threading.Event(), random.Random(0)

    def report() -> None:
        step = LENGTH
        while not end.wait(1.0):
            at.post("/runs/r/reports", stored_runs.report(noise, range(step, step + 1), segment=1))
            step += 1

    thread = threading.Thread(target=report)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
