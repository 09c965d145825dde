"""Prints the measurements of docs/benchmarks.md, and the checkpoint cost of docs/trainer.md, as a Markdown table.

python -m benchmarks [--peers]       --peers also measures trackio and wandb, installed into a temporary folder
"""

import argparse
import os
import platform
from collections.abc import Iterator

from benchmarks import checkpoint, data, kill, log, loss, order, ranks, step
from benchmarks.rows import Row, print_rows


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--peers", action="store_true", help="also measure trackio and wandb (offline)")
    peers = arguments.parse_args().peers
    print(f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, Python {platform.python_version()}\n")
    print_rows(measurements(peers))


def measurements(peers: bool) -> Iterator[Row]:
    yield from log.measure(peers=peers)
    for group in (kill, order, step, data, loss, checkpoint, ranks):
        yield from group.measure()


if __name__ == "__main__":
    main()
