"""How many one-step reports per second 1, 2 and 4 collectors ingest on one PostgreSQL, and who uses the processors.

    python -m benchmarks.many_collectors [--seconds 10] [--runs 200] [--nginx]

As `benchmarks.reports`, which it repeats with each number of collectors: the client, the collectors and the database
share the cores, so the shares of a core say where more of them would help. With --nginx each number of collectors is
measured twice, the second time behind nginx with deploy/nginx/lossguard.conf, to which the runs report over TLS.
"""

import argparse
import os
from collections.abc import Iterator
from itertools import product

from benchmarks import reports
from benchmarks.rows import Row, print_rows

COLLECTORS = (1, 2, 4)


def measure(*, seconds: float = 10.0, runs: int = 200, nginx: bool = False) -> Iterator[Row]:
    for collectors, behind in product(COLLECTORS, (False, True) if nginx else (False,)):
        for row in reports.measure(seconds=seconds, collectors=collectors, runs=runs, nginx=behind):
            comparison = f"{row.comparison}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
            yield Row(row.name, row.value, row.unit, None, comparison)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--nginx", action="store_true", help="also behind nginx")
    print_rows(measure(**vars(parser.parse_args())))
