"""What live runs need of collectors, database and scrapes, computed from measured costs."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

from lossguard.delivery.sender import PAUSE_SECONDS

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
    """What was measured. CPU time is of one core; that of a database within the collector counts there."""

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
    """What so many live runs need."""

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
    """Of runs that each take so many steps a second. Raises ValueError below 0 of either."""
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
