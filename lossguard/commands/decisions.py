"""A person's decision about a proposed intervention, on the command line: what `approve` and `reject` share."""

import argparse
import getpass
import json
import sys
from typing import Any
from urllib.parse import quote

from lossguard.delivery.client import Client
from lossguard.errors import CollectorError, Unreachable
from lossguard.protocol import MAX_PERSON, PERSON_HEADER, is_run_id
from lossguard.settings import Settings
from lossguard.states import InterventionState

DONE = {"approve": "approved: it is ordered", "reject": "rejected"}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_id", metavar="RUN", help="id of the run")
    parser.add_argument("--intervention", type=int, metavar="N", help="its number in the run, if several wait")
    parser.add_argument("--yes", action="store_true", help="do not ask again")
    parser.add_argument("--json", action="store_true", help="print the answer of the collector, and ask nothing")
    parser.add_argument("--url", help="the collector's address (default: LOSSGUARD_URL)")
    parser.add_argument("--token", help="bearer token with the scope operate (default: LOSSGUARD_TOKEN)")


def decide(options: argparse.Namespace, verb: str, *, dry_run: bool = False) -> int:
    """Print the preflight and, unless `dry_run`, send the decision. Returns the exit code of the command."""
    settings = Settings.read(mode="online", url=options.url, token=options.token)
    assert settings.url is not None
    with Client(settings.url, settings.token) as client:
        try:
            return _decide(client, options, verb, dry_run)
        except CollectorError as problem:
            unsure = isinstance(problem, Unreachable) and problem.may_have_arrived and not dry_run
            what = "look before you try again: it may have arrived" if unsure else "nothing was changed"
            return _failed(f"{problem}; {what}")


def _decide(client: Client, options: argparse.Namespace, verb: str, dry_run: bool) -> int:
    if not is_run_id(options.run_id):
        return _failed(f"{options.run_id!r:.200} cannot be the id of a run")
    waiting = _waiting(client.get(f"/runs/{options.run_id}"), options.intervention)
    if len(waiting) != 1:
        return _failed(_none_or_several(options, waiting))
    (each,) = waiting
    found = client.get(f"/interventions/{each['id']}/preflight")
    stands_against = found["restorable"] is False or found["refused"] is not None
    if not options.json:
        _show(options.run_id, each, found)
    if not dry_run and (options.yes or options.json or _confirmed(verb)):
        headers = {PERSON_HEADER: quote(_person())}
        found = client.request("POST", f"/interventions/{each['id']}/{verb}", {}, headers=headers)
    elif not dry_run:
        return _failed("nothing was changed")
    if options.json:
        print(json.dumps(found, indent=1))
    elif not dry_run:
        print(f"intervention {each['number']} is {DONE[verb]}")
    return 1 if dry_run and stands_against else 0


def _waiting(run: dict[str, Any], number: int | None) -> list[dict[str, Any]]:
    waiting = [each for each in run["interventions"] if each["state"] == InterventionState.PROPOSED]
    return [each for each in waiting if number in (None, each["number"])]


def _none_or_several(options: argparse.Namespace, waiting: list[dict[str, Any]]) -> str:
    if waiting:
        numbers = ", ".join(str(each["number"]) for each in waiting)
        return f"several interventions of {options.run_id} wait for approval: choose --intervention {numbers}"
    named = "no intervention" if options.intervention is None else f"no intervention {options.intervention}"
    return f"{named} of {options.run_id} waits for approval"


def _show(run_id: str, each: dict[str, Any], found: dict[str, Any]) -> None:
    to_step = "" if each["rewind_to"] is None else f" to step {each['rewind_to']:,}"
    print(f"Run {run_id}, intervention {each['number']}: {each['kind']}{to_step}")
    for sentence in found["sentences"]:
        print(f"  {sentence}")
    for shown in found["texts"]:
        print(f"  batch {shown['batch']:,}: {_printable(shown['text'])}")


def _printable(text: str) -> str:
    """Without the characters with which a text of the training data could steer a terminal."""
    return "".join(each if each.isprintable() else " " for each in text)


def _confirmed(verb: str) -> bool:
    try:
        return input(f"{verb.capitalize()}? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _person() -> str:
    try:
        return getpass.getuser()[:MAX_PERSON]
    except (OSError, KeyError, ImportError):  # a container without an entry for its user
        return "unknown"


def _failed(why: str) -> int:
    print(f"lossguard: {why}", file=sys.stderr)
    return 1
