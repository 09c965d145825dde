"""`lossguard approve`: approve a proposed intervention, or only say what an approval would do."""

import argparse
from typing import Any

from lossguard.cli.interventions import add_options, decide


def add_to(commands: Any) -> None:
    parser = commands.add_parser("approve", help="approve the intervention of a run that waits for it")
    add_options(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="only print what is known: exit code 1 if the checkpoint is gone or the trainer would refuse",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    return decide(options, "approve", dry_run=options.dry_run)
