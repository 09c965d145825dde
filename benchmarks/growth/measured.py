"""The figures of the sizing table, measured at one site after the other."""

import random
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import ingest, many_runs, reports, runs_page
from benchmarks.collectors import memory_mib
from benchmarks.growth import subject
from benchmarks.growth.costs import MANY
from benchmarks.growth.places import Place
from benchmarks.growth.site import Site, Spent, site
from benchmarks.growth.sizing import Figures
from benchmarks.growth.subject import Subject
from benchmarks.weight import table_sizes
from tests.dashboard.browser import chromium, dashboard

NUM_REPORTS = 50
"""Reports of MANY steps after which a step is weighed."""
NUM_RUNS, LOAD_SECONDS = 200, 10.0
"""Runs that report at once, and for how long."""
NUM_ROWS, FIRST_ROW = 300, 1_000_000
"""Further steps of each that are not in blocks yet, of 511 at most; the first is behind all those of the load."""
NUM_SCRAPED = 1_000
LENGTH = 10_000
"""Steps of the run of an open page."""


def measure(place: Place) -> Figures:
    """The figures of a database."""
    step, step_bytes = _step(place)
    report, live_run_kib, idle_mib, run_kib = _live_runs(place)
    return Figures(
        report_us=1e6 * report.collector,
        report_database_us=1e6 * report.database,
        step_us=1e6 * step.collector,
        step_database_us=1e6 * step.database,
        step_bytes=step_bytes,
        live_run_kib=live_run_kib,
        collector_mib=idle_mib,
        collector_run_kib=run_kib,
        scrape_run_ms=_scrape(place),
        open_page_ms=_open_page(place) if shutil.which("chromium") else None,
    )


def _step(place: Place) -> tuple[Spent, float]:
    """What a step of large reports costs, and its bytes in the store."""
    run = Subject(0)
    with site(place, lambda engine: None) as at:
        at.register(run.run, subject.SEGMENT + 1)
        before, start = sum(table_sizes(at.database).values()), at.spent()
        for _ in range(NUM_REPORTS):
            at.post(f"/runs/{run.run}/reports", run.report(MANY))
        used, grown = at.spent(), sum(table_sizes(at.database).values()) - before
    num_steps = NUM_REPORTS * MANY
    return Spent(*((now - then) / num_steps for now, then in zip(used, start, strict=True))), grown / num_steps


def _live_runs(place: Place) -> tuple[Spent, float, float, float]:
    """(what a report of one step costs, KiB of a live run in the store, MiB of a collector at rest, KiB for a run)"""
    with site(place, lambda engine: None, **reports.settings(NUM_RUNS)) as at:
        idle, before = memory_mib(at.process, "VmRSS"), sum(table_sizes(at.database).values())
        load = reports.Load(LOAD_SECONDS)
        used = reports.apply(load, [(at.url, at.process)], at.server, runs=NUM_RUNS)
        for number in range(NUM_RUNS):
            rows = ingest.report(random.Random(number), FIRST_ROW, NUM_ROWS)
            at.post(f"/runs/r{number}/reports", rows)
        grown = sum(table_sizes(at.database).values()) - before
        held = memory_mib(at.process, "VmRSS") - idle
    each = {who: seconds / load.num_acknowledged for who, seconds in used.items()}
    report = Spent(each["collectors"], each.get("database", 0.0), each["client"])
    return report, grown / 1024 / NUM_RUNS, idle, max(0.0, held) * 1024 / NUM_RUNS


def _scrape(place: Place) -> float:
    """Milliseconds of the collector for a live run, all of which have reported since the last scrape."""
    with site(place, lambda engine: many_runs.fill(engine, NUM_SCRAPED, live=NUM_SCRAPED)) as at:
        spent = at.cost(lambda: at.get("/metrics"), before=lambda: many_runs.report(at.engine))
    return 1e3 * spent.collector / NUM_SCRAPED


def _open_page(place: Place) -> float:
    """Milliseconds of the dashboard for a minute of a Run page."""
    run = Subject(LENGTH)
    with (
        site(place, lambda engine: subject.write(engine, run)) as at,
        dashboard(at.database) as served,
        chromium() as browser,
        _reporting(at, run),
    ):
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(f"{served.url}/run?run={run.run}")
        page.wait_for_selector("[data-testid=stMetricValue]", timeout=120_000)
        return runs_page.idle_ms(served)


@contextmanager
def _reporting(at: Site, run: Subject) -> Iterator[None]:
    """The run reports a step a second during the block."""
    end = threading.Event()

    def report() -> None:
        while not end.wait(1.0):
            at.post(f"/runs/{run.run}/reports", run.report(1))

    thread = threading.Thread(target=report)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
