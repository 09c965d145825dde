"""`lossguard hold`: stop a run at its next step boundary, until it is released."""

import argparse
from typing import Any

from lossguard.cli.orders import add_order_options, order


def add_to(commands: Any) -> None:
    parser = commands.add_parser("hold", help="stop a run at its next step boundary, until it is released")
    add_order_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    return order(options, "hold", "Hold {run} until somebody releases it", {"reason": options.reason})
