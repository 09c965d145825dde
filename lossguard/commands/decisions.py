"""A person's decision about a proposed intervention, on the command line: what `approve` and `reject` share."""

import argparse
from typing import Any

from lossguard.commands import connection
from lossguard.commands.errors import CommandError
from lossguard.commands.interventions import is_proposed
from lossguard.commands.named_run import add_run, find
from lossguard.commands.readable import count
from lossguard.commands.terminal import Terminal, print_json

DONE = {"approve": "approved: it is ordered", "reject": "rejected"}


def add_options(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("--intervention", type=int, metavar="N", help="its number in the run, if several wait")
    connection.add_confirmation(parser)
    connection.add_options(parser, *connection.STEERING)


def decide(options: argparse.Namespace, verb: str, *, dry_run: bool = False) -> int:
    """Print the preflight and, unless `dry_run`, send the decision. Returns the exit code of the command."""
    with connection.connected(options) as client:
        run = find(client, options.which_run)
        each = _chosen(run, options.intervention)
        found = client.get(f"/interventions/{each['id']}/preflight")
        if not options.json:
            _show(run["id"], each, found)
        if not dry_run:
            connection.confirm(options, f"{verb.capitalize()}?")
            found = connection.change(client, "POST", f"/interventions/{each['id']}/{verb}", {})
    if options.json:
        print_json(found)
    elif not dry_run:
        Terminal.of().say(f"intervention {each['number']} is {DONE[verb]}")
    stands_against = dry_run and (found["restorable"] is False or found["refused"] is not None)
    return 1 if stands_against else 0


def _chosen(run: dict[str, Any], number: int | None) -> dict[str, Any]:
    """The intervention that waits. Raises CommandError when there is none, or several."""
    waiting = [each for each in run["interventions"] if is_proposed(each) and number in (None, each["number"])]
    if len(waiting) == 1:
        chosen: dict[str, Any] = waiting[0]
        return chosen
    if waiting:
        numbers = ", ".join(str(each["number"]) for each in waiting)
        raise CommandError(f"several interventions of {run['id']} wait for approval: choose --intervention {numbers}")
    named = "no intervention" if number is None else f"no intervention {number}"
    raise CommandError(f"{named} of {run['id']} waits for approval")


def _show(run_id: str, each: dict[str, Any], found: dict[str, Any]) -> None:
    terminal = Terminal.of()
    to_step = "" if each["rewind_to"] is None else f" to step {count(each['rewind_to'])}"
    terminal.say(f"Run {run_id}, intervention {each['number']}: {each['kind']}{to_step}")
    for sentence in found["sentences"]:
        terminal.say(f"  {sentence}")
    for shown in found["texts"]:
        terminal.say(f"  batch {count(shown['batch'])}: {shown['text']}")
