"""Interventions as the commands show them, and a person's decision about one."""

import argparse
from collections.abc import Mapping
from typing import Any

from lossguard.cli import connection
from lossguard.cli.errors import CommandError
from lossguard.cli.named_run import add_run, find
from lossguard.cli.terminal import Terminal, print_json
from lossguard.vocabulary.states import InterventionState, OrderKind, RunState
from lossguard.vocabulary.wording import batches, count

NAMES = ("number", "incident", "kind", "state", "attempt", "rewind_to", "skip_from", "skip_to", "lr_scale", "remedies")
UNDER_WAY = (
    InterventionState.PROPOSED,
    InterventionState.APPROVED,
    InterventionState.ORDERED,
    InterventionState.APPLIED,
)


def fields(intervention: dict[str, Any]) -> dict[str, Any]:
    """An intervention as `--json` prints it."""
    shown = {name: intervention.get(name) for name in (*NAMES, "created_at", "changed_at")}
    return shown | {"reasons": (intervention.get("details") or {}).get("reasons", [])}


def action_of(intervention: dict[str, Any]) -> str:
    """Such as "rollback to 600, verified"."""
    to = "" if intervention["rewind_to"] is None else f" to {count(intervention['rewind_to'])}"
    return f"{intervention['kind']}{to}, {intervention['state']}"


def lines_of(intervention: dict[str, Any]) -> list[str]:
    """The intervention and its reasons, one line each."""
    skipped = batches(intervention["skip_from"], intervention["skip_to"])
    skips = "" if skipped == "-" else f"; batches {skipped} skipped"
    head = f"Intervention {intervention['number']}: {action_of(intervention)}{skips}{describe_changes(intervention)}"
    return [head, *(f"  {reason}" for reason in fields(intervention)["reasons"])]


def describe_changes(rollback: Mapping[str, Any]) -> str:
    """Changes of the training by a rollback, as the end of a sentence: "; learning rate x 0.5; remedies: clip"."""
    changes = "" if rollback.get("lr_scale") is None else f"; learning rate x {rollback['lr_scale']:g}"
    return f"{changes}; remedies: {', '.join(rollback['remedies'])}" if rollback.get("remedies") else changes


def waiting(run: dict[str, Any]) -> list[dict[str, Any]]:
    """The interventions of a run that wait for a person: proposed ones, and a hold of a run that is running."""
    return [each for each in run["interventions"] if is_proposed(each) or (is_holding(each) and is_running(run))]


def is_proposed(intervention: dict[str, Any]) -> bool:
    return bool(intervention["state"] == InterventionState.PROPOSED)


def is_under_way(intervention: dict[str, Any]) -> bool:
    """Return True if something is still to happen: a decision, an order, a verification or a release."""
    return intervention["state"] in UNDER_WAY


def is_running(run: dict[str, Any]) -> bool:
    return bool(run["state"] == RunState.RUNNING)


def is_holding(intervention: dict[str, Any]) -> bool:
    """Return True if it is a hold that stops the run until an operator releases it."""
    return bool(intervention["kind"] == OrderKind.HOLD and intervention["state"] == InterventionState.APPLIED)


# A person's decision: what `approve` and `reject` share.

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
    terminal.say(f"Run {run_id}, intervention {each['number']}: {each['kind']}{to_step}{describe_changes(each)}")
    for sentence in found["sentences"]:
        terminal.say(f"  {sentence}")
    for shown in found["texts"]:
        terminal.say(f"  batch {count(shown['batch'])}: {shown['text']}")
