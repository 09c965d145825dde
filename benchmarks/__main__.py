"""The tables of docs/benchmarks.md and the checkpoints of docs/trainer.md, one group after the other, as Markdown.

python -m benchmarks [--peers]       --peers installs trackio and wandb into a temporary folder to measure beside ours
"""

import argparse
import os
import platform
from collections.abc import Iterator

from benchmarks import checkpoint, kill, log, loss, order, ranks, step
from benchmarks.rows import Row, print_rows


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--peers", action="store_true", help="measure trackio and wandb (offline) beside ours")
    peers = arguments.parse_args().peers
    print(f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, Python {platform.python_version()}\n")
    print_rows(figures(peers))


def figures(peers: bool) -> Iterator[Row]:
    yield from log.measure(peers=peers)
    for group in (kill, order, step, loss, checkpoint, ranks):
        yield from group.measure()


if __name__ == "__main__":
    main()
