"""Prints the measurements of docs/benchmarks.md as a Markdown table.

python -m benchmarks [--peers]       --peers also measures trackio and wandb, installed into a temporary folder
"""

import argparse
import os
import platform
from itertools import chain

from benchmarks import log, loss, step
from benchmarks.harness import print_rows

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", action="store_true", help="also measure trackio and wandb (offline)")
    peers = parser.parse_args().peers
    os.environ.pop("LOSSGUARD_RUN_ID", None)
    print(f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, Python {platform.python_version()}\n")
    sdk = (log.log(peers=peers), log.kill(), log.order())
    print_rows(chain(*sdk, step.log(), loss.measure(), step.ranks()))
