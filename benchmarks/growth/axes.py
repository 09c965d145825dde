"""The sizes along which costs are measured, and the stores in which they are."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import sqlalchemy as sa

from benchmarks import many_runs, reports
from benchmarks.growth import costs, subject
from benchmarks.growth.costs import Cost
from benchmarks.growth.curve import Curve
from benchmarks.growth.places import Place
from benchmarks.growth.site import Site, site
from benchmarks.growth.subject import Subject

LOAD_SECONDS = 4.0
"""For so long the live runs report as fast as they can."""
LONG, SHORT = 100_000, 10_000
"""Steps of the measured run where its length does not change."""


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
    settings: Callable[[int], dict[str, str]] = field(default=lambda size: {})
    """Of the collector."""


def curves(axis: Axis, place: Place, sizes: Sequence[int]) -> Iterator[Curve]:
    """Each cost of the axis at these sizes."""
    measured = {size: _costs(axis, place, size) for size in sizes}
    for cost in axis.costs:
        if place.name in cost.stores:
            values = {size: found[cost.name] for size, found in measured.items()}
            yield Curve(cost.name, place.name, cost.unit, values)


def _costs(axis: Axis, place: Place, size: int) -> dict[str, float]:
    """By name, in the axis' order: reads first, because ingestion makes the run longer."""
    filled: list[Subject] = []
    with site(place, lambda engine: filled.append(axis.fill(engine, size)), **axis.settings(size)) as at:
        return {cost.name: cost.measure(at, filled[0]) for cost in axis.costs if place.name in cost.stores}


def _of_length(engine: sa.Engine, length: int) -> Subject:
    """Its steps have two metrics: charts and frames read one."""
    chosen = Subject(length)
    subject.write(engine, chosen, all_metrics=False)
    return chosen


def _among_runs(engine: sa.Engine, count: int, *, live: int) -> Subject:
    many_runs.fill(engine, count, live=live)
    chosen = _of_length(engine, SHORT)
    chosen.num_live = live
    return chosen


def _with_metrics(engine: sa.Engine, count: int) -> Subject:
    chosen = Subject(LONG, count)
    subject.write(engine, chosen)
    return chosen


def _with_incidents(engine: sa.Engine, count: int) -> Subject:
    chosen = _of_length(engine, LONG)
    subject.add_incidents(engine, chosen, count)
    return chosen


def _scrape_of_all(at: Site, _: Subject) -> float:
    """Milliseconds, when all live runs have reported since the last scrape."""
    spent = at.cost(lambda: at.get("/metrics"), before=lambda: many_runs.report(at.engine))
    return 1e3 * (spent.collector + spent.database)


def _report_among_all(at: Site, live: Subject) -> float:
    """Microseconds for a report of one step while so many new runs report at once."""
    load = reports.Load(LOAD_SECONDS)
    used = reports.apply(load, [(at.url, at.process)], at.server, runs=live.num_live)
    return 1e6 * (used["collectors"] + used.get("database", 0.0)) / load.num_acknowledged


STEPS = Axis(
    "stored steps of a run",
    (10_000, 100_000, 1_000_000, 10_000_000),
    _of_length,
    (
        costs.OVERVIEW, costs.ZOOM, costs.FRAME, costs.PAGE, costs.SCRAPE, costs.FACTS, costs.DOCUMENT, costs.PER_STEP,
        costs.PER_REPORT,
    ),
    large=(100_000_000,),
)  # fmt: skip
RUNS = Axis(
    "stored runs",
    (10, 100, 1_000, 10_000),
    partial(_among_runs, live=1),
    (
        costs.OVERVIEW, costs.ZOOM, costs.PAGE, costs.ATTENTION, costs.WORDS, costs.SETTING, costs.SCORECARD,
        costs.SCRAPE, costs.PER_STEP, costs.PER_REPORT,
    ),
)  # fmt: skip
LIVE_RUNS = Axis(
    "live runs",
    (1, 10, 100, 1_000),
    lambda engine, count: _among_runs(engine, count, live=count),
    (
        Cost("scrape of /metrics, all runs have reported", "ms", _scrape_of_all), costs.PAGE, costs.ATTENTION,
        costs.PER_STEP, Cost("ingestion, the same beside all live runs", "us", _report_among_all),
    ),
    settings=reports.settings,
)  # fmt: skip
METRICS = Axis(
    "metrics of a run",
    (8, 32, 128, 500),
    _with_metrics,
    (
        costs.PER_STEP, costs.PER_VALUE, costs.PER_REPORT, costs.OVERVIEW, costs.ZOOM, costs.FRAME, costs.PAGE,
        costs.SCRAPE, costs.FACTS, costs.DOCUMENT,
    ),
)  # fmt: skip
INCIDENTS = Axis(
    "incidents of a run",
    (0, 10, 100, 1_000, 10_000),
    _with_incidents,
    (
        costs.OVERVIEW, costs.PAGE, costs.ATTENTION, costs.SCRAPE, costs.FACTS, costs.DOCUMENT, costs.PER_STEP,
        costs.PER_REPORT,
    ),
)  # fmt: skip
AXES = {"steps": STEPS, "runs": RUNS, "live-runs": LIVE_RUNS, "metrics": METRICS, "incidents": INCIDENTS}
