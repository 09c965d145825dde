"""Every figure of docs/benchmarks.md, one group after the other, as a Markdown table.

python -m benchmarks [--peers]       --peers installs trackio and wandb into a temporary folder to measure beside ours
"""

import argparse
import os
import platform

from benchmarks import kill, log, loss, order, step
from benchmarks.rows import print_rows


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--peers", action="store_true", help="measure trackio and wandb (offline) beside ours")
    peers = arguments.parse_args().peers
    print(f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, Python {platform.python_version()}\n")
    groups = (lambda: log.measure(peers=peers), kill.measure, order.measure, step.measure, loss.measure)
    print_rows(row for measure in groups for row in measure())


if __name__ == "__main__":
    main()
