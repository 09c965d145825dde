"""How each cost grows, as tables: by stored steps, runs, live runs, metrics and incidents, on SQLite and PostgreSQL.

    python -m benchmarks.growth                              all of it, and the sizing table: under ten minutes
    python -m benchmarks.growth --only steps runs            some of it
    python -m benchmarks.growth --only steps --large         also a run of 100 million steps (3 GB of disk)
    python -m benchmarks.growth --most 1000 --stores SQLite  only sizes up to 1,000; one database

Every size is a store of its own with a collector of its own. Costs are CPU time, of collector, database and reader
together: medians of repeated calls, which other work on the machine hardly changes. What so many live runs need is
computed from figures of the same run (`--only sizing`).
"""

import argparse
import os
import platform
import time
from collections.abc import Iterator, Sequence

from benchmarks.growth import sizing, tables
from benchmarks.growth.axes import AXES, Axis, curves
from benchmarks.growth.curve import Curve
from benchmarks.growth.measured import measure
from benchmarks.growth.places import NAMES, Place, place

SIZING = "sizing"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[*AXES, SIZING], default=[*AXES, SIZING])
    parser.add_argument("--stores", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--most", type=int, metavar="SIZE", help="leave larger sizes out")
    parser.add_argument("--large", action="store_true", help="also a run of 100 million steps")
    chosen = parser.parse_args()
    sizes = {name: _sizes(axis, chosen.most, chosen.large) for name, axis in AXES.items() if name in chosen.only}
    for name, some in sizes.items():
        if sum(size > 0 for size in some) < 2:
            parser.error(f"--most {chosen.most} leaves fewer than two sizes of {name} above 0, so no growth: raise it")
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}", flush=True)
    for name, some in sizes.items():
        _print(_of_axis(AXES[name], chosen.stores, some))
    if SIZING in chosen.only:
        _print(_of_sizing(chosen.stores))


def _sizes(axis: Axis, most: int | None, large: bool) -> list[int]:
    sizes = [*axis.sizes, *(axis.large if large else ())]
    return [size for size in sizes if size <= (most or size)]


def _print(lines: Iterator[str]) -> None:
    began = time.monotonic()
    print(flush=True)
    for line in lines:
        print(line, flush=True)
    print(f"\n({time.monotonic() - began:.0f} s, load {os.getloadavg()[0]:.1f})", flush=True)


def _of_axis(axis: Axis, stores: Sequence[str], sizes: Sequence[int]) -> Iterator[str]:
    found: list[Curve] = []
    for name in stores:
        with place(name) as where:
            found += curves(axis, where, sizes)
    order = [cost.name for cost in axis.costs]
    yield from tables.lines(axis.name, sizes, sorted(found, key=lambda curve: order.index(curve.cost)))


def _of_sizing(stores: Sequence[str]) -> Iterator[str]:
    for name in stores:
        with place(name) as where:
            yield from _sizing_on(where)


def _sizing_on(where: Place) -> Iterator[str]:
    figures = measure(where)
    yield from ("", f"{where.name}, measured: {sizing.described(figures)}", "")
    yield from sizing.lines(figures, one_writer=where.server is None)


if __name__ == "__main__":
    main()
