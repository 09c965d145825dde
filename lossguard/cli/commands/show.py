"""`lossguard show`: one run, and its story in one sentence."""

import argparse
import math
import time
from collections.abc import Sequence
from typing import Any

from lossguard.cli import interventions
from lossguard.cli.commands import incidents as incidents_command
from lossguard.cli.commands.runs import verdict_text
from lossguard.cli.connection import add_options, connected, dashboard_page
from lossguard.cli.named_run import Found, add_run, find
from lossguard.cli.terminal import Style, Terminal, Text, print_json
from lossguard.vocabulary.protocol import CAN_ROLL_BACK, decode_number, uncertified_state, why_unguarded, why_unsaved
from lossguard.vocabulary.run_search import tags_of
from lossguard.vocabulary.states import NOT_REPLAYED, Arm
from lossguard.vocabulary.wording import ago, count, duration, never_restored, number, percent, plural

# The story of a run: "Step 860, 26.4%, 6 incidents, 2 rewinds cost 119 steps and 28 s".


def progress_of(run: dict[str, Any]) -> float | None:
    """The share of the planned steps that is done; None where nobody said how many are planned."""
    newest, total = run["newest_step"], run["total_steps"]
    return min(1.0, (newest["step"] + 1) / total) if newest and total else None


def story(run: Found, goodput: Found, incidents: Sequence[Found], costs: Found) -> str:
    """The sentence, from the answers of the collector about the run."""
    newest, progress = run["newest_step"], progress_of(run)
    if newest is None:
        return "No step has been reported yet."
    parts = [f"Step {newest['step']:,}"]
    parts += [] if progress is None else [percent(progress)]
    is_measured = costs["rewinds"] or all(each["kind"] in NOT_REPLAYED for each in incidents)
    unmeasured = "" if is_measured else " without a rollback, harm not measured"
    parts.append(f"{plural(len(incidents), 'incident')}{unmeasured}" if incidents else "no incident")
    if rewinds := costs["rewinds"]:
        seconds = "" if costs["seconds"] is None else f" and {duration(costs['seconds'])}"
        parts.append(f"{plural(len(rewinds), 'rewind')} cost {plural(costs['steps'], 'step')}{seconds}")
    parts += _harm_of_waiting(run.get("arms", ()))
    if goodput["goodput"] is not None:
        parts.append(f"goodput {percent(goodput['goodput'])}")
    return ", ".join(parts) + "."


def _harm_of_waiting(arms: Sequence[dict[str, Any]]) -> list[str]:
    """Describe the arms of the run, if some were tried: where waiting ended, against the best of them."""
    lowest: dict[int, float] = {}  # by intervention: the loss of its best arm minus that of waiting
    for each in arms:
        difference = decode_number(each["details"]["difference"])
        if difference is not None and math.isfinite(difference):
            lowest[each["intervention"]] = min(difference, lowest.get(each["intervention"], 0.0))
    waited = [each["details"]["got_past"] for each in arms if each["arm"] == Arm.WAIT]
    harm = f", {-sum(lowest.values()) / len(lowest):.3g} nats above the best arm" if lowest else ""
    return [f"waiting got past in {sum(waited)} of {len(waited)} that were tried{harm}"] if waited else []


# The command.

SHOWN_METRICS = ("loss", "grad_norm", "log_z", "lr", "tokens")
NAMES = ("id", "name", "project", "state", "verdict", "sentence", "note", "host", "git_commit", "command")
TIMES = ("started_at", "last_report_at", "finished_at", "archived_at")


def add_to(commands: Any) -> None:
    parser = commands.add_parser("show", help="where a run stands, what happened to it and what it waits for")
    add_run(parser)
    add_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    with connected(options) as client:
        found = find(client, options.which_run)
        incidents = incidents_command.of_run(client, found["id"])
        about = (client.get(f"/runs/{found['id']}/{name}") for name in ("goodput", "policy", "costs"))
        shown = fields(found, incidents, *about)
    if options.json:
        print_json(shown)
    else:
        _print(Terminal(), shown, found, incidents)
    return 0


def fields(run: Found, incidents: list[Found], goodput: Found, policy: Found, costs: Found) -> dict[str, Any]:
    """A run as `lossguard show --json` prints it."""
    newest = run["newest_step"] or {"step": None, "metrics": {}}
    return {name: run.get(name) for name in (*NAMES, "capabilities", *TIMES)} | {
        "tags": tags_of(run.get("tags"), run["config"]),
        "step": newest["step"],
        "total_steps": run["total_steps"],
        "progress": progress_of(run),
        "metrics": newest["metrics"],
        "story": story(run, goodput, incidents, costs),
        "goodput": goodput["goodput"],
        "seconds": goodput["seconds"],
        "incidents": [incidents_command.fields(each, run) for each in incidents],
        "interventions": [interventions.fields(each) for each in run["interventions"]],
        "waiting": [each["number"] for each in interventions.waiting(run)],
        "uncertified": _uncertified(run),
        "policy": {each["name"]: {"value": each["value"], "from": each["from"]} for each in policy["values"]},
        "dashboard": dashboard_page("run", run=run["id"]),
    }


def _uncertified(run: Found) -> dict[str, Any] | None:
    """Step and reason of the newest state that is never restored, until a newer one can be."""
    events = [(each["segment"], each["kind"], each["details"]) for each in run["events"]]
    led = ((each["live_order"], each["number"]) for each in run["segments"] if each["live_order"] >= 0)
    _, newest = max(led, default=(-1, -1))  # not of a process beside the live line
    found = uncertified_state(events, newest, run["restorable_steps"])
    return None if found is None else {"step": found[0], "reason": found[1]}


def _print(terminal: Terminal, shown: dict[str, Any], run: Found, incidents: list[Found]) -> None:
    name = run["name"] or run["id"]
    other = f"  {run['id']}" if name != run["id"] else ""
    terminal.say(Text(name, Style.BOLD), f"{other}  project {run['project']}")
    terminal.say(verdict_text(run, run["sentence"]))
    terminal.say(shown["story"])
    terminal.say(_progress(shown, run["latest"]))
    if shown["note"]:
        terminal.say(f"Note: {shown['note']}")
    capabilities, uncertified = shown["capabilities"] or (), shown["uncertified"]
    for what, why in (
        ("Nothing is rolled back any more", why_unguarded(capabilities)),
        ("Checkpoints cannot be saved", why_unsaved(capabilities)),
        (
            "Checkpoint without a certificate",
            uncertified and never_restored(**uncertified, restorable=run["restorable_steps"]),
        ),
    ):
        if why:
            terminal.say(Text(f"{what}: ", Style.RED), f"{why}.")
    for each in interventions.waiting(run):
        first, *others = _what_to_do(run, each)
        terminal.say(Text("Waiting for you: ", Style.RED), first)
        for other in others:
            terminal.say(f"  {other}")
    if incidents:
        terminal.say("")
        terminal.say_table(incidents_command.COLUMNS, incidents_command.rows(incidents, run))
        terminal.say("")
    by_hand = [each for each in run["interventions"] if each["incident"] is None]
    for sentence in (sentence for each in by_hand for sentence in interventions.lines_of(each)):
        terminal.say(sentence)
    if by_hand:
        terminal.say("")
    terminal.say(f"Policy: {_policy(shown['policy'], 'name')}, mode {_policy(shown['policy'], 'mode')}")
    if shown["dashboard"]:
        terminal.say(shown["dashboard"])


def _progress(shown: dict[str, Any], latest: dict[str, Any]) -> str:
    """Describe the position of the run. Where the newest step has no loss, as an evaluation's, the last value is
    shown."""
    total = "" if shown["total_steps"] is None else f" of {count(shown['total_steps'])}"
    done = "" if shown["progress"] is None else f" ({percent(shown['progress'])})"
    known = latest | {name: value for name, value in shown["metrics"].items() if value is not None}
    values = [f"{name} {number(known[name])}" for name in SHOWN_METRICS if name in known]
    reported = f"last report {ago(shown['last_report_at'], time.time())}"
    return ", ".join([f"step {count(shown['step'])}{total}{done}", *values, reported])


def _what_to_do(run: Found, each: Found) -> list[str]:
    """Name what waits, and the commands that decide it: those that the page of the run offers, too."""
    if interventions.is_proposed(each):
        what = interventions.action_of(each)
        both = f"lossguard approve {run['id']}, or lossguard reject {run['id']}"
        return [f"intervention {each['number']} ({what}): {both}"]
    can_roll_back = CAN_ROLL_BACK in run["capabilities"] and run["restorable_steps"]
    newest = ", ".join(map(count, sorted(run["restorable_steps"])[-3:]))
    restart = "start it again with the same run id"
    return [
        f"the run is held (intervention {each['number']})",
        f"lossguard release {run['id']}: training continues from the current step, as it is",
        *([f"lossguard rollback {run['id']} --to STEP: the newest are {newest}"] if can_roll_back else ()),
        f"lower the learning rate: stop the trainer, lower the rate in its configuration, {restart}",
        "stop the run: end the trainer, and do not start it again",
    ]


def _policy(policy: dict[str, Any], name: str) -> str:
    origin = policy[name]["from"]
    return f"{policy[name]['value']} ({'the default' if origin == 'default' else f'set for the {origin}'})"
