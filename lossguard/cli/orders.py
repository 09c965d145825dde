"""Orders by a person, and what they lead to: shared by `rollback`, `hold` and `release`."""

import argparse
from collections.abc import Callable, Mapping
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


def order(
    options: argparse.Namespace,
    verb: str,
    question: str,
    body: Mapping[str, Any],
    planned: Callable[[Any], str] | None = None,
) -> int:
    """Ask, order, and print the intervention that follows. Returns the exit code of the command.

    `planned`: words for the question, from the collector's answer to the same order as a dry run.
    """
    with connected(options) as client:
        run = find(client, options.which_run)
        newest = run["newest_step"]
        at = "no step yet" if newest is None else f"now at step {count(newest['step'])}"
        path, what = f"/runs/{quote(run['id'], safe='')}/{verb}", question.format(run=run["id"])
        if planned is not None and not options.yes and not options.json:
            what += planned(change(client, "POST", path, {**body, "dry_run": True}))
        confirm(options, f"{what} ({run['state']}, {at})?")
        change(client, "POST", path, body)
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
