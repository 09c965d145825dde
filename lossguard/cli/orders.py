"""What `rollback`, `hold` and `release` share: an order by a person, and what it leads to."""

import argparse
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from lossguard.cli import interventions
from lossguard.cli.connection import STEERING, add_confirmation, add_options, change, confirm, connected, read_back
from lossguard.cli.named_run import add_run, find, of
from lossguard.cli.terminal import Terminal, print_json
from lossguard.vocabulary.wording import count


def add_order_options(parser: argparse.ArgumentParser, *, reason: bool = True) -> None:
    add_run(parser)
    if reason:
        parser.add_argument("--reason", default="", help="for the record, and for the log of the trainer")
    add_confirmation(parser)
    add_options(parser, *STEERING)


def order(options: argparse.Namespace, verb: str, question: str, body: Mapping[str, Any]) -> int:
    """Ask, order, and print the intervention that follows. Returns the exit code of the command."""
    with connected(options) as client:
        run = find(client, options.which_run)
        newest = run["newest_step"]
        at = "no step yet" if newest is None else f"now at step {count(newest['step'])}"
        confirm(options, f"{question.format(run=run['id'])} ({run['state']}, {at})?")
        change(client, "POST", f"/runs/{quote(run['id'], safe='')}/{verb}", body)
        ended = read_back(f"the {verb} is ordered", lambda: of(client, run["id"]))
    # Not simply the last one: the policy may have added one since.
    ordered = next(each for each in reversed(ended["interventions"]) if each["kind"] == verb)
    if options.json:
        print_json({"run": run["id"], "intervention": interventions.fields(ordered)})
    else:
        _say(ended, ordered)
    return 0


def _say(run: dict[str, Any], ordered: dict[str, Any]) -> None:
    terminal = Terminal.of()
    for line in interventions.lines_of(ordered):
        terminal.say(line)
    if not interventions.is_running(run):
        terminal.say(f"The run is {run['state']}: this is carried out when a process resumes it.")
