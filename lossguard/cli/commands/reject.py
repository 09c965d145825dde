"""`lossguard reject`: reject a proposed intervention."""

import argparse
from typing import Any

from lossguard.cli.interventions import add_options, decide


def add_to(commands: Any) -> None:
    parser = commands.add_parser("reject", help="reject the intervention of a run that waits for approval")
    add_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    return decide(options, "reject")
