"""Lossguard's costs: a collector, and the commands of the store."""

import os
import resource
import subprocess
import sys
from urllib.parse import quote

from benchmarks import many_runs, prune, reports
from benchmarks.collectors import tree_cpu_seconds
from benchmarks.growth import subject
from benchmarks.growth.costs import LIST
from benchmarks.growth.places import Place
from benchmarks.growth.site import Site, site
from benchmarks.growth.subject import Subject
from benchmarks.store_peers.costs import BYTES, CURVE, DELETION, NUM_CLIENTS, PAGE, REPORT, SEARCH, Found, Sizes
from benchmarks.weight import table_sizes
from lossguard import Client
from tests import postgres

LOAD_SECONDS = 3.0
STEPS_PER_REPORT = 1_000
OLD = "old"


def measure(place: Place, sizes: Sizes) -> Found:
    with site(place, lambda engine: many_runs.fill(engine, sizes.runs), **reports.settings(NUM_CLIENTS)) as at:
        found = {PAGE: _answer(at, LIST), SEARCH: _answer(at, f"{LIST}&search={quote('lr=0.01')}")}
        load = reports.Load(LOAD_SECONDS)
        used = reports.apply(load, [(at.url, at.process)], at.server, runs=NUM_CLIENTS)
        found[REPORT] = 1e6 * (used["collectors"] + used.get("database", 0.0)) / load.num_acknowledged
        run, before = Subject(0), sum(table_sizes(at.database).values())
        at.register(run.run, subject.SEGMENT + 1)
        for _ in range(sizes.steps // STEPS_PER_REPORT):
            at.post(f"/runs/{run.run}/reports", run.report(STEPS_PER_REPORT))
        found[BYTES] = (sum(table_sizes(at.database).values()) - before) / sizes.steps
        with Client(at.url, token=reports.TOKEN, timeout=120) as client:
            stored = client.run(run.run)
            found[CURVE] = 1e6 * sum(at.cost(lambda: stored.frame("loss"))) / sizes.steps
    projects = [OLD] * sizes.deleted
    with site(place, lambda engine: prune.fill(engine, projects, sizes.deleted_steps)) as at:
        found[DELETION] = 1e3 * _pruned(at.database, place.server) / sizes.deleted
    return found


def _answer(at: Site, path: str) -> float:
    """Milliseconds."""
    spent = at.cost(lambda: at.get(path))
    return 1e3 * (spent.collector + spent.database)


def _pruned(database: str, server: postgres.Server | None) -> float:
    """Seconds of the command, its start included, and of the database."""
    before = _children_seconds(server)
    command = [sys.executable, "-m", "db", "prune", "--days", "30", "--url", database]
    subprocess.run(command, env=os.environ | {"COLUMNS": "200"}, stdout=subprocess.DEVNULL, check=True)
    return _children_seconds(server) - before


def _children_seconds(server: postgres.Server | None) -> float:
    """Of the processes that this one has waited for, and of the database."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime + (0.0 if server is None else tree_cpu_seconds(server.process()))
