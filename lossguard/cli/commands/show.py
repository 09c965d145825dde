"""`lossguard show`: one run, and its story in one sentence."""

import argparse
import time
from typing import Any
from urllib.parse import quote

from lossguard.cli import interventions
from lossguard.cli.commands import incidents as incidents_command
from lossguard.cli.commands.runs import state_text
from lossguard.cli.connection import add_options, connected, run_page
from lossguard.cli.named_run import Found, add_run, find
from lossguard.cli.terminal import Style, Terminal, Text, print_json, table
from lossguard.vocabulary.protocol import uncertified_state, why_unguarded
from lossguard.vocabulary.run_search import tags_of
from lossguard.vocabulary.states import NOT_REPLAYED
from lossguard.vocabulary.wording import ago, count, duration, never_restored, number, percent, plural

# The story of a run: "861 steps, 26.4%, 28 s lost to 6 incidents".

LOST_TO_SPIKES = "spike"
"""The cause of that name in the goodput of a run."""


def progress_of(run: dict[str, Any]) -> float | None:
    """The share of the planned steps that is done; None where nobody said how many are planned."""
    newest, total = run["newest_step"], run["total_steps"]
    return min(1.0, (newest["step"] + 1) / total) if newest and total else None


def story(run: dict[str, Any], goodput: dict[str, Any], incidents: list[dict[str, Any]]) -> str:
    """The sentence, from the answers of the collector about the run."""
    newest, progress = run["newest_step"], progress_of(run)
    if newest is None:
        return "No step has been reported yet."
    parts = [plural(newest["step"] + 1, "step")]
    parts += [] if progress is None else [percent(progress)]
    lost = goodput["seconds"].get(LOST_TO_SPIKES, 0.0)
    spikes = [each for each in incidents if each["kind"] not in NOT_REPLAYED]
    if spikes and not lost:
        parts.append(f"{plural(len(spikes), 'incident')} without a rollback, harm not measured")
    elif spikes:
        parts.append(f"{'under 1 s' if lost < 1 else duration(lost)} lost to {plural(len(spikes), 'incident')}")
    else:
        parts.append("no incident")
    if goodput["goodput"] is not None:
        parts.append(f"goodput {percent(goodput['goodput'])}")
    return ", ".join(parts) + "."


# The command.

SHOWN_METRICS = ("loss", "grad_norm", "log_z", "lr", "tokens")


def add_to(commands: Any) -> None:
    parser = commands.add_parser("show", help="where a run stands, what happened to it and what it waits for")
    add_run(parser)
    add_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    with connected(options) as client:
        found = find(client, options.which_run)
        path = f"/runs/{quote(found['id'], safe='')}"
        incidents = incidents_command.of_run(client, found["id"])
        shown = fields(found, incidents, client.get(f"{path}/goodput"), client.get(f"{path}/policy"))
    if options.json:
        print_json(shown)
    else:
        _print(Terminal.of(), shown, found, incidents)
    return 0


def fields(run: Found, incidents: list[Found], goodput: Found, policy: Found) -> dict[str, Any]:
    """A run as `lossguard show --json` prints it."""
    newest = run["newest_step"] or {"step": None, "metrics": {}}
    names = ("id", "name", "project", "state", "note", "host", "git_commit", "command", "capabilities")
    times = ("started_at", "last_report_at", "finished_at", "archived_at")
    shown = {name: run.get(name) for name in (*names, *times)}
    shown |= {"tags": tags_of(run.get("tags"), run["config"])}
    shown |= {"step": newest["step"], "total_steps": run["total_steps"], "progress": progress_of(run)}
    shown |= {"metrics": newest["metrics"], "story": story(run, goodput, incidents)}
    shown |= {"goodput": goodput["goodput"], "seconds": goodput["seconds"]}
    shown["incidents"] = [incidents_command.fields(each, run) for each in incidents]
    shown["interventions"] = [interventions.fields(each) for each in run["interventions"]]
    shown["waiting"] = [each["number"] for each in interventions.waiting(run)]
    shown["uncertified"] = _uncertified(run)
    shown["policy"] = {each["name"]: {"value": each["value"], "from": each["from"]} for each in policy["values"]}
    return shown | {"dashboard": run_page(run["id"])}


def _uncertified(run: Found) -> dict[str, Any] | None:
    """Step and reason of the newest state that is never restored, until a newer one can be."""
    events = [(each["segment"], each["kind"], each["details"]) for each in run["events"]]
    newest = max((each["number"] for each in run["segments"]), default=-1)
    found = uncertified_state(events, newest, run["restorable_steps"])
    return None if found is None else {"step": found[0], "reason": found[1]}


def _print(terminal: Terminal, shown: dict[str, Any], run: Found, incidents: list[Found]) -> None:
    name = run["name"] or run["id"]
    other = f"  {run['id']}" if name != run["id"] else ""
    terminal.say(Text(name, Style.BOLD), f"{other}  project {run['project']}  ", state_text(run["state"]))
    terminal.say(shown["story"])
    terminal.say(_progress(shown))
    if shown["note"]:
        terminal.say(f"Note: {shown['note']}")
    if why := why_unguarded(shown["capabilities"] or ()):
        terminal.say(Text("Nothing is rolled back any more: ", Style.RED), f"{why}.")
    if shown["uncertified"]:
        sentence = never_restored(**shown["uncertified"], restorable=run["restorable_steps"])
        terminal.say(Text("Checkpoint without a certificate: ", Style.RED), f"{sentence}.")
    for each in interventions.waiting(run):
        terminal.say(Text("Waiting for you: ", Style.RED), _what_to_do(run["id"], each))
    if incidents:
        terminal.say("")
        for line in table(incidents_command.COLUMNS, incidents_command.rows(incidents, run), terminal.width):
            terminal.say(*line)
        terminal.say("")
    by_hand = [each for each in run["interventions"] if each["incident"] is None]
    for sentence in (sentence for each in by_hand for sentence in interventions.lines_of(each)):
        terminal.say(sentence)
    if by_hand:
        terminal.say("")
    terminal.say(f"Policy: {_policy(shown['policy'], 'name')}, mode {_policy(shown['policy'], 'mode')}")
    if shown["dashboard"]:
        terminal.say(shown["dashboard"])


def _progress(shown: dict[str, Any]) -> str:
    total = "" if shown["total_steps"] is None else f" of {count(shown['total_steps'])}"
    done = "" if shown["progress"] is None else f" ({percent(shown['progress'])})"
    values = [f"{name} {number(shown['metrics'][name])}" for name in SHOWN_METRICS if name in shown["metrics"]]
    reported = f"last report {ago(shown['last_report_at'], time.time())}"
    return ", ".join([f"step {count(shown['step'])}{total}{done}", *values, reported])


def _what_to_do(run_id: str, each: Found) -> str:
    if interventions.is_proposed(each):
        what = interventions.action_of(each)
        return f"intervention {each['number']} ({what}): lossguard approve {run_id}, or lossguard reject {run_id}"
    return f"the run is held (intervention {each['number']}): lossguard release {run_id}"


def _policy(policy: dict[str, Any], name: str) -> str:
    origin = policy[name]["from"]
    return f"{policy[name]['value']} ({'the default' if origin == 'default' else f'set for the {origin}'})"
