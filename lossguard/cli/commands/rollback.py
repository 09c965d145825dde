"""`lossguard rollback`: roll a run back by hand."""

import argparse
import re
from collections.abc import Mapping
from typing import Any

from lossguard.cli.interventions import describe_changes
from lossguard.cli.orders import add_order_options, order
from lossguard.vocabulary.errors import ConfigurationError
from lossguard.vocabulary.protocol import is_remedy, is_step
from lossguard.vocabulary.wording import MISSING, batches, count


def add_to(commands: Any) -> None:
    parser = commands.add_parser("rollback", help="roll a run back to a checkpoint, and leave batches out")
    parser.add_argument(
        "--to",
        type=int,
        metavar="STEP",
        help="restore the newest checkpoint at or before this step (default: as the policy would)",
    )
    parser.add_argument(
        "--skip",
        metavar="A:B",
        help="leave out the batches from A to B-1; :B begins at that of the checkpoint (default: the policy's fewest)",
    )
    parser.add_argument(
        "--lr-scale",
        type=float,
        metavar="X",
        help="multiply the schedule's learning rate by X from there on, above 0 and at most 1",
    )
    parser.add_argument(
        "--remedy",
        action="append",
        default=[],
        metavar="NAME",
        help="switch on a remedy that the run has registered, such as clip or z_loss; may be repeated",
    )
    add_order_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.to is not None and not is_step(options.to):
        raise ConfigurationError(f"--to {options.to} must be a step, from 0")
    if options.lr_scale is not None and not 0 < options.lr_scale <= 1:
        raise ConfigurationError(f"--lr-scale {options.lr_scale:g} must be above 0 and at most 1")
    if unusable := [name for name in options.remedy if not is_remedy(name)]:
        raise ConfigurationError(f"--remedy {unusable[0]!r:.80} must have 1 to 64 characters of a-z, 0-9 and _")
    skip_from, skip_to = skipped(options.skip)
    changes = {"lr_scale": options.lr_scale, "remedies": options.remedy or None}
    body = {"rewind_to": options.to, "skip_from": skip_from, "skip_to": skip_to, "reason": options.reason} | changes
    given = {name: value for name, value in body.items() if value is not None}
    return order(options, "rollback", "Roll {run} back", given, lambda plan: _planned(plan) + describe_changes(changes))


def _planned(plan: Mapping[str, int | None]) -> str:
    """The checkpoint and the batches of the rollback, as the collector would order it."""
    skipped_batches = batches(plan["skip_from"], plan["skip_to"])
    skips = "no batches" if skipped_batches == MISSING else f"batches {skipped_batches}"
    return f" to step {count(plan['rewind_to'])}, skipping {skips}"


def skipped(text: str | None) -> tuple[int | None, int | None]:
    """(skip_from, skip_to) of A:B. Raises ConfigurationError."""
    if text is None:
        return None, None
    found = re.fullmatch(r"(\d{0,16}):(\d{1,16})", text)
    begin, end = (found[1], found[2]) if found else ("", "")
    if found is None or (begin and int(begin) > int(end)):
        raise ConfigurationError(f"--skip {text!r:.80} must be A:B, two batch indices with A at most B, or :B")
    return (int(begin) if begin else None), int(end)
