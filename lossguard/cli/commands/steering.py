"""Decisions of a person about a run: `lossguard approve`, `reject`, `rollback`, `hold`, `release` and `note`."""

import argparse
import re
from collections.abc import Callable, Mapping
from typing import Any

from lossguard.cli.connection import add_confirmation, add_options, change, confirm, connected, read_back
from lossguard.cli.errors import CommandError
from lossguard.cli.interventions import describe_changes, fields, is_proposed, is_running, lines_of
from lossguard.cli.named_run import Found, add_run, find, of
from lossguard.cli.terminal import Terminal, print_json
from lossguard.vocabulary.errors import ConfigurationError
from lossguard.vocabulary.protocol import is_remedy, is_step
from lossguard.vocabulary.wording import MISSING, batches, count

DONE = {"approve": "approved: it is ordered", "reject": "rejected"}


def add_to(commands: Any) -> None:
    approve = _parser(commands, "approve", decide, "approve the intervention of a run that waits for it")
    reject = _parser(commands, "reject", decide, "reject the intervention of a run that waits for approval")
    for parser in (approve, reject):
        parser.add_argument("--intervention", type=int, metavar="N", help="its number in the run, if several wait")
    approve.add_argument(
        "--dry-run",
        action="store_true",
        help="only print what is known: exit code 1 if the checkpoint is gone or the trainer would refuse",
    )
    rollback = _parser(commands, "rollback", roll_back, "roll a run back to a checkpoint, and leave batches out")
    rollback.add_argument(
        "--to",
        type=int,
        metavar="STEP",
        help="restore the newest checkpoint at or before this step (default: as the policy would)",
    )
    rollback.add_argument(
        "--skip",
        metavar="A:B",
        help="leave out the batches from A to B-1; :B begins at that of the checkpoint (default: the policy's fewest)",
    )
    rollback.add_argument(
        "--lr-scale",
        type=float,
        metavar="X",
        help="multiply the schedule's learning rate by X from there on, above 0 and at most 1",
    )
    rollback.add_argument(
        "--remedy",
        action="append",
        default=[],
        metavar="NAME",
        help="switch on a remedy that the run has registered, such as clip or z_loss; may be repeated",
    )
    hold = _parser(commands, "hold", hold_run, "stop a run at its next step boundary, until it is released")
    for parser in (rollback, hold):
        parser.add_argument("--reason", default="", help="for the record, and for the log of the trainer")
    released = _parser(commands, "release", release, "end the hold of a run: it continues where it stopped")
    note = _parser(commands, "note", write_note, "write a note on a step of a run")
    note.add_argument("text", metavar="TEXT", help="what you have to say")
    note.add_argument("--step", type=int, metavar="N", help="the step that it is about (default: the newest one)")
    for parser in (approve, reject, rollback, hold, released, note):
        add_confirmation(parser)
        add_options(parser, "read", "operate")  # the run is looked up first


def _parser(commands: Any, name: str, run: Callable[[argparse.Namespace], int], help: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=help)
    add_run(parser)
    parser.set_defaults(run=run)
    return parser


# Decisions about proposed interventions.


def decide(options: argparse.Namespace) -> int:
    """Print the preflight and, unless --dry-run is given, approve or reject."""
    verb, is_dry = options.command, options.command == "approve" and options.dry_run
    with connected(options) as client:
        run = find(client, options.which_run)
        each = _chosen(run, options.intervention)
        found = client.get(f"/interventions/{each['id']}/preflight")
        if not options.json:
            _show(run["id"], each, found)
        if not is_dry:
            confirm(options, f"{verb.capitalize()}?")
            found = change(client, "POST", f"/interventions/{each['id']}/{verb}", {})
    if options.json:
        print_json(found)
    elif not is_dry:
        Terminal().say(f"intervention {each['number']} is {DONE[verb]}")
    return 1 if is_dry and (found["restorable"] is False or found["refused"] is not None) else 0


def _chosen(run: Found, number: int | None) -> Found:
    """The intervention that waits. Raises CommandError when there is none, or several."""
    waiting = [each for each in run["interventions"] if is_proposed(each) and number in (None, each["number"])]
    if not waiting:
        named = "no intervention" if number is None else f"no intervention {number}"
        raise CommandError(f"{named} of {run['id']} waits for approval")
    if len(waiting) > 1:
        numbers = ", ".join(str(each["number"]) for each in waiting)
        raise CommandError(f"several interventions of {run['id']} wait for approval: choose --intervention {numbers}")
    found: Found = waiting[0]
    return found


def _show(run_id: str, each: Found, found: Found) -> None:
    terminal = Terminal()
    to_step = "" if each["rewind_to"] is None else f" to step {count(each['rewind_to'])}"
    terminal.say(f"Run {run_id}, intervention {each['number']}: {each['kind']}{to_step}{describe_changes(each)}")
    for sentence in found["sentences"]:
        terminal.say(f"  {sentence}")
    for shown in found["texts"]:
        terminal.say(f"  batch {count(shown['batch'])}: {shown['text']}")


# Orders.


def roll_back(options: argparse.Namespace) -> int:
    if options.to is not None and not is_step(options.to):
        raise ConfigurationError(f"--to {options.to} must be a step, from 0")
    if options.lr_scale is not None and not 0 < options.lr_scale <= 1:
        raise ConfigurationError(f"--lr-scale {options.lr_scale:g} must be above 0 and at most 1")
    if unusable := [name for name in options.remedy if not is_remedy(name)]:
        raise ConfigurationError(f"--remedy {unusable[0]!r:.80} must have 1 to 64 characters of a-z, 0-9 and _")
    skip_from, skip_to = skipped(options.skip)
    body = {"rewind_to": options.to, "skip_from": skip_from, "skip_to": skip_to, "reason": options.reason}
    body |= {"lr_scale": options.lr_scale, "remedies": options.remedy or None}
    return _order(options, "Roll {run} back", {name: value for name, value in body.items() if value is not None})


def hold_run(options: argparse.Namespace) -> int:
    return _order(options, "Hold {run} until somebody releases it", {"reason": options.reason})


def release(options: argparse.Namespace) -> int:
    return _order(options, "Release {run}", {})


def _order(options: argparse.Namespace, question: str, body: Mapping[str, Any]) -> int:
    """Ask, order, and print the intervention that follows."""
    verb = options.command
    with connected(options) as client:
        run = find(client, options.which_run)
        newest = run["newest_step"]
        at = "no step yet" if newest is None else f"now at step {count(newest['step'])}"
        path, what = f"/runs/{run['id']}/{verb}", question.format(run=run["id"])
        if verb == "rollback" and not options.yes and not options.json:
            plan = change(client, "POST", path, {**body, "dry_run": True})
            left_out = batches(plan["skip_from"], plan["skip_to"])
            skips = "no batches" if left_out == MISSING else f"batches {left_out}"
            what += f" to step {count(plan['rewind_to'])}, skipping {skips}{describe_changes(body)}"
            body = {**body, **{name: value for name, value in plan.items() if value is not None}}  # what is confirmed
        confirm(options, f"{what} ({run['state']}, {at})?")
        change(client, "POST", path, body)
        ended = read_back(f"the {verb} is ordered", lambda: of(client, run["id"]))
    # Not simply the last one: the policy may have added one since.
    ordered = next(each for each in reversed(ended["interventions"]) if each["kind"] == verb)
    if options.json:
        print_json({"run": run["id"], "intervention": fields(ordered)})
        return 0
    terminal = Terminal()
    for line in lines_of(ordered):
        terminal.say(line)
    if not is_running(ended):
        terminal.say(f"The run is {ended['state']}: this is carried out when a process resumes it.")
    return 0


def skipped(text: str | None) -> tuple[int | None, int | None]:
    """(skip_from, skip_to) of A:B. Raises ConfigurationError."""
    if text is None:
        return None, None
    found = re.fullmatch(r"(\d{0,16}):(\d{1,16})", text)
    if found is None or int(found[1] or 0) > int(found[2]):
        raise ConfigurationError(f"--skip {text!r:.80} must be A:B, two batch indices with A at most B, or :B")
    return (int(found[1]) if found[1] else None), int(found[2])


# Notes.


def write_note(options: argparse.Namespace) -> int:
    if not options.text.strip():
        raise ConfigurationError("the note is empty")
    if options.step is not None and not is_step(options.step):
        raise ConfigurationError(f"--step {options.step} must be a step, from 0")
    with connected(options) as client:
        found = find(client, options.which_run)
        at = "its newest step" if options.step is None else f"step {count(options.step)}"
        confirm(options, f"Write this note at {at} of {found['id']}?")
        made = change(client, "POST", f"/runs/{found['id']}/notes", {"step": options.step, "text": options.text})
    if options.json:
        print_json({"run": found["id"]} | {name: made[name] for name in ("id", "step", "text")})
    else:
        Terminal().say(f"noted at step {count(made['step'])} of {found['id']}")
    return 0
