"""What a store costs beside MLflow with PostgreSQL and trackio, in one run: reports, bytes, curves, lists, deletions.

    python -m benchmarks.store_peers [--runs 10000] [--steps 10000] [--reports 400] [--deleted 100]

Values are CPU time of server, database and client together, which other work on the machine hardly changes. The peers
are installed into a temporary environment; LOSSGUARD_BENCH_PEERS names a folder in which to keep it. Neither of them
archives steps.
"""

import argparse
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from benchmarks.growth.places import NAMES, POSTGRESQL, SQLITE, place
from benchmarks.growth.tables import rounded
from benchmarks.peers import python_with
from benchmarks.store_peers import mlflow, ours, trackio
from benchmarks.store_peers.costs import UNITS, Found, Sizes
from tests import postgres


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, size in asdict(Sizes()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=size)
    for line in lines(Sizes(**vars(parser.parse_args()))):
        print(line, flush=True)
    print(f"\nload {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def lines(sizes: Sizes) -> Iterator[str]:
    """A Markdown table: each cost of ours, and that of a peer with its ratio to ours."""
    columns = dict(_pairs(sizes))
    yield "| | " + " | ".join(f"Lossguard, {store} | {peer}" for store, peer in columns) + " |"
    yield "|---|" + "---|---|" * len(columns)
    for cost, name in sizes.names().items():
        cells = [_cells(cost, own, other) for own, other in columns.values()]
        yield f"| {name} | " + " | ".join(cells) + " |"


def _pairs(sizes: Sizes) -> Iterator[tuple[tuple[str, str], tuple[Found, Found]]]:
    """(database of ours, peer) -> the costs of both."""
    with python_with(*mlflow.PACKAGES, *trackio.PACKAGES) as python, tempfile.TemporaryDirectory() as folder:
        if POSTGRESQL in NAMES:
            with place(POSTGRESQL) as where:
                own = ours.measure(where, sizes)
            with postgres.running() as server:
                yield (POSTGRESQL, "MLflow, PostgreSQL"), (own, mlflow.measure(python, server, Path(folder), sizes))
        with place(SQLITE) as where:
            own = ours.measure(where, sizes)
        yield (SQLITE, "trackio, SQLite"), (own, trackio.measure(python, Path(folder), sizes))


def _cells(cost: str, own: Found, other: Found) -> str:
    unit = UNITS[cost]
    theirs = f"{rounded(other[cost])} {unit}, x {rounded(other[cost] / own[cost])}" if cost in other else "none"
    return f"{rounded(own[cost])} {unit} | {theirs}"


if __name__ == "__main__":
    main()
