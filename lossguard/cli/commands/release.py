"""`lossguard release`: end the hold of a run."""

import argparse
from typing import Any

from lossguard.cli.orders import add_order_options, order


def add_to(commands: Any) -> None:
    parser = commands.add_parser("release", help="end the hold of a run: it continues where it stopped")
    add_order_options(parser, reason=False)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    return order(options, "release", "Release {run}", {})
