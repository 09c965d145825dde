"""`lossguard policy`: show and set what is done about incidents, of a run, a project or the whole collector.

`policy explain` shows the numbers behind the decisions about a run.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from lossguard.cli.connection import add_confirmation, add_options, change, confirm, connected, read_back
from lossguard.cli.errors import CommandError, ExitCode
from lossguard.cli.interventions import action_of, fields
from lossguard.cli.named_run import find
from lossguard.cli.terminal import Style, Terminal, TerminalColumn, Text, print_json, table
from lossguard.client.client import Client
from lossguard.vocabulary.errors import ConfigurationError
from lossguard.vocabulary.protocol import decode_number
from lossguard.vocabulary.states import Layer
from lossguard.vocabulary.wording import batches, count, number

ACTIONS = ("show", "set", "unset")
FIRST_RUN_MODE = "first_run_mode"
"""A value of the collector alone, which is not among the values of a run."""
EXPLAIN = "explain"
CHOICES = (
    TerminalColumn(title="TREATMENT"),
    TerminalColumn(title="REWIND TO", right=True),
    TerminalColumn(title="SKIP", right=True, rank=2),
    TerminalColumn(title="PRIOR", right=True, rank=1),
    TerminalColumn(title="RECORDS", right=True),
    TerminalColumn(title="CHANCE", right=True),
    TerminalColumn(title="COST", right=True),
)
"""Chances of getting past: without records, and with them; costs in steps of training."""
ARMS = (
    TerminalColumn(title="TRIED"),
    TerminalColumn(title="STEPS", right=True),
    TerminalColumn(title="HELD-OUT LOSS", right=True),
    TerminalColumn(title="MINUS WAIT", right=True),
    TerminalColumn(title="GOT PAST"),
)
COLUMNS = (TerminalColumn(title="NAME"), TerminalColumn(title="VALUE", min_width=10), TerminalColumn(title="FROM"))


@dataclass(frozen=True, slots=True)
class PolicyOwner:
    """Whose policy it is."""

    path: str
    name: str
    layer: Layer


def add_to(commands: Any) -> None:
    parser = commands.add_parser(
        "policy",
        help="show or set the policy of a run, of a project or of the collector",
        usage="lossguard policy [RUN | --project PROJECT | --collector] [show | set NAME=VALUE .. | unset NAME ..]\n"
        "       lossguard policy explain RUN [INCIDENT]",
    )
    parser.add_argument("words", nargs="*", metavar="RUN show|set|unset ..", help="no RUN with --project, --collector")
    whose = parser.add_mutually_exclusive_group()
    whose.add_argument("--project", help="of all runs of a project that set nothing themselves")
    whose.add_argument("--collector", action="store_true", help="of all runs for which nobody sets anything else")
    add_confirmation(parser)
    add_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.words[:1] == [EXPLAIN]:
        return _explain(options)
    named, action, values = _parsed(options)
    with connected(options) as client:
        target = _target(client, named, options.project)
        shown = client.get(target.path)
        if action != "show":
            body = _body(_changes(action, values), shown["values"])
            confirm(options, f"{action.capitalize()} {', '.join(values)} in the policy of {target.name}?")
            change(client, "PUT", target.path, body)
            shown = read_back("the policy is changed", lambda: client.get(target.path))
    if options.json:
        print_json({"of": target.name, "layer": target.layer.value} | shown)
    elif action == "show":
        _print(Terminal.of(), shown)
    else:
        _say_changed(Terminal.of(), target, _changes(action, values))
    return 0


def _parsed(options: argparse.Namespace) -> tuple[str | None, str, list[str]]:
    """(RUN, or None for a project or the collector; the action; its arguments)."""
    words: list[str] = options.words
    named = None
    if options.project is None and not options.collector:
        if not words or words[0] in ACTIONS:
            raise ConfigurationError("whose policy? Give a RUN, --project PROJECT or --collector")
        named, words = words[0], words[1:]
    action, values = (words[0], words[1:]) if words else ("show", [])
    if action == EXPLAIN:
        raise ConfigurationError(
            f"the RUN follows explain: lossguard policy {EXPLAIN} {' '.join([options.words[0], *values])}"
        )
    if action not in ACTIONS:
        raise ConfigurationError(f"{action!r:.80} is none of {', '.join(ACTIONS)}")
    if (action == "show") == bool(values):
        needs = "takes no values" if values else "needs values, such as mode=approve"
        raise ConfigurationError(f"`policy {action}` {needs}")
    return named, action, values


def _target(client: Client, named: str | None, project: str | None) -> PolicyOwner:
    if named is not None:
        run_id = find(client, named)["id"]
        return PolicyOwner(f"/runs/{quote(run_id, safe='')}/policy", run_id, Layer.RUN)
    if project is not None:
        return PolicyOwner(f"/policy?{urlencode({'project': project})}", project, Layer.PROJECT)
    return PolicyOwner("/policy", "the collector", Layer.COLLECTOR)


def _changes(action: str, values: Sequence[str]) -> dict[str, Any]:
    """The new value of each name; None removes one."""
    return dict.fromkeys(values) if action == "unset" else dict(_assignment(each) for each in values)


def _assignment(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigurationError(f"{text!r:.80} must be NAME=VALUE, such as mode=approve")
    try:
        parsed = json.loads(value)  # a number, true or false
        json.dumps(parsed, allow_nan=False)
    except ValueError:
        return name, value  # a text; the collector says what it thinks of it, of NaN too
    return name, parsed


def _body(changes: dict[str, Any], known: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The changes as the API takes them. Raises ConfigurationError for a name that no policy has."""
    parts = {each["name"]: each.get("part", "policy") for each in known} | {FIRST_RUN_MODE: "policy"}
    for name in changes:
        if name not in parts:
            raise ConfigurationError(f"no policy has a value {name!r:.80}; the values are: {', '.join(parts)}")
    detection = {name: value for name, value in changes.items() if parts[name] == "detection"}
    body = {name: value for name, value in changes.items() if name not in detection}
    return body | ({"detection": detection} if detection else {})


def _print(terminal: Terminal, shown: dict[str, Any]) -> None:
    rows = [_row(each["name"], each["value"], each["from"]) for each in shown["values"]]
    if first := (shown["layers"].get(Layer.COLLECTOR) or {}).get(FIRST_RUN_MODE):
        rows.append(_row(FIRST_RUN_MODE, first, Layer.COLLECTOR.value))
    for line in table(COLUMNS, rows, terminal.width):
        terminal.say(*line)


def _row(name: str, value: Any, layer: str) -> list[Text]:
    return [Text(name), Text(_shown(value)), Text(layer, None if layer == "default" else Style.YELLOW)]


def _shown(value: Any) -> str:
    """Return the value as it is typed after `set NAME=`."""
    return value if isinstance(value, str) else json.dumps(value)


def _say_changed(terminal: Terminal, target: PolicyOwner, changes: dict[str, Any]) -> None:
    whose = target.name if target.layer is Layer.COLLECTOR else f"{target.layer} {target.name}"
    for name, value in changes.items():
        terminal.say(f"{whose}: {name} {'is no longer set' if value is None else f'= {_shown(value)}'}")


# The numbers behind a decision.


def _explain(options: argparse.Namespace) -> int:
    words = options.words[1:]
    if not 1 <= len(words) <= 2 or (words[1:] and not words[1].isdecimal()):
        raise ConfigurationError("`policy explain` needs a RUN, and takes the number of an incident")
    with connected(options) as client:
        run = find(client, words[0])
    found = [_explained(each, run) for each in run["interventions"] if words[1:] in ([], [str(each["incident"])])]
    found = [each for each in found if each["choices"] or each["arms"]]
    if not found:
        which = f"incident {words[1]} of {run['id']}" if words[1:] else f"run {run['id']}"
        raise CommandError(
            f"no decision about {which} compared treatments: see lossguard incidents", ExitCode.NOT_FOUND
        )
    if options.json:
        print_json(found)
        return 0
    terminal = Terminal.of()
    for each in found:
        terminal.say(Text(f"Incident {count(each['incident'])}", Style.BOLD), f": {each['action']}")
        for line in table(CHOICES, [_choice_row(choice) for choice in each["choices"]], terminal.width):
            terminal.say(*line)
        for line in table(ARMS, [_arm_row(arm) for arm in each["arms"]], terminal.width) if each["arms"] else ():
            terminal.say(*line)
    return 0


def _explained(intervention: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    """A decision as `policy explain --json` prints it."""
    arms = [each["details"] for each in run.get("arms", ()) if each["intervention"] == intervention["number"]]
    shown = {name: intervention[name] for name in ("incident", "number", "attempt")}
    shown |= {"action": action_of(intervention), "reasons": fields(intervention)["reasons"]}
    return shown | {"choices": (intervention["details"] or {}).get("choices", []), "arms": arms}


def _choice_row(choice: dict[str, Any]) -> list[Text]:
    remedy = f" {choice['remedy']}" if choice["remedy"] else ""
    return [
        Text(f"{choice['arm']}{remedy}"),
        Text(count(choice["rewind_to"])),
        Text(batches(choice["skip_from"], choice["skip_to"])),
        Text(number(choice["prior"])),
        Text(f"{choice['past']} of {choice['tried']}" if choice["tried"] else "none"),
        Text(number(choice["chance"])),
        Text(f"{choice['cost']:.0f}"),
    ]


def _arm_row(arm: dict[str, Any]) -> list[Text]:
    loss, difference, error = (decode_number(arm[name]) for name in ("loss", "difference", "error"))
    remedy = f" {arm['remedy']}" if arm["remedy"] else ""
    return [
        Text(f"{arm['arm']}{remedy}"),
        Text(count(arm["steps"])),
        Text(f"{loss:.4f}"),
        Text(f"{difference:+.4f} +- {error:.4f}"),
        Text("yes" if arm["got_past"] else "no"),
    ]
