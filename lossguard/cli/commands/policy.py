"""`lossguard policy`: show and set what is done about incidents, of a run, a project or the whole collector.

`policy explain` shows the numbers behind the decisions about a run.
"""

import argparse
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from lossguard.cli.connection import add_confirmation, add_options, change, confirm, connected, read_back
from lossguard.cli.errors import CommandError, ExitCode
from lossguard.cli.interventions import action_of, fields
from lossguard.cli.named_run import find
from lossguard.cli.terminal import Style, Terminal, TerminalColumn, Text, print_json
from lossguard.vocabulary.errors import ConfigurationError
from lossguard.vocabulary.protocol import decode_number
from lossguard.vocabulary.states import Layer
from lossguard.vocabulary.wording import batches, count, number

ACTIONS = ("show", "set", "unset")
FIRST_RUN_MODE = "first_run_mode"
"""A value of the collector alone, which is not among the values of a run."""
EXPLAIN = "explain"
CHOICES = (
    TerminalColumn("TREATMENT"),
    TerminalColumn("REWIND TO", right=True),
    TerminalColumn("SKIP", right=True, rank=2),
    TerminalColumn("PRIOR", right=True, rank=1),
    TerminalColumn("RECORDS", right=True),
    TerminalColumn("CHANCE", right=True),
    TerminalColumn("COST", right=True),
)
"""Chances of getting past: without records, and with them; costs in steps of training."""
ARMS = (
    TerminalColumn("TRIED"),
    TerminalColumn("STEPS", right=True),
    TerminalColumn("HELD-OUT LOSS", right=True),
    TerminalColumn("MINUS WAIT", right=True),
    TerminalColumn("GOT PAST"),
)
COLUMNS = (TerminalColumn("NAME"), TerminalColumn("VALUE", min_width=10), TerminalColumn("FROM"))


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
    changes = dict.fromkeys(values) if action == "unset" else dict(map(_assignment, values))  # None removes a value
    with connected(options) as client:
        if named is not None:
            name, layer = find(client, named)["id"], Layer.RUN
            path = f"/runs/{name}/policy"
        elif options.project is not None:
            name, layer, path = options.project, Layer.PROJECT, f"/policy?{urlencode({'project': options.project})}"
        else:
            name, layer, path = "the collector", Layer.COLLECTOR, "/policy"
        shown = client.get(path)
        if changes:
            body = _body(changes, shown["values"])
            confirm(options, f"{action.capitalize()} {', '.join(values)} in the policy of {name}?")
            change(client, "PUT", path, body)
            shown = read_back("the policy is changed", lambda: client.get(path))
    terminal = Terminal()
    if options.json:
        print_json({"of": name, "layer": layer.value} | shown)
    elif changes:
        whose = name if layer is Layer.COLLECTOR else f"{layer} {name}"
        for changed, value in changes.items():
            terminal.say(f"{whose}: {changed} {'is no longer set' if value is None else f'= {_shown(value)}'}")
    else:
        rows = [_row(each["name"], each["value"], each["from"]) for each in shown["values"]]
        if first := (shown["layers"].get(Layer.COLLECTOR) or {}).get(FIRST_RUN_MODE):
            rows.append(_row(FIRST_RUN_MODE, first, Layer.COLLECTOR.value))
        terminal.say_table(COLUMNS, rows)
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


def _row(name: str, value: Any, layer: str) -> list[str | Text]:
    return [name, _shown(value), Text(layer, None if layer == "default" else Style.YELLOW)]


def _shown(value: Any) -> str:
    """Return the value as it is typed after `set NAME=`."""
    return value if isinstance(value, str) else json.dumps(value)


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
    terminal = Terminal()
    for each in found:
        terminal.say(Text(f"Incident {count(each['incident'])}", Style.BOLD), f": {each['action']}")
        terminal.say_table(CHOICES, list(map(_choice_row, each["choices"])))
        if each["arms"]:
            terminal.say_table(ARMS, list(map(_arm_row, each["arms"])))
    return 0


def _explained(intervention: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    """A decision as `policy explain --json` prints it."""
    arms = [each["details"] for each in run.get("arms", ()) if each["intervention"] == intervention["number"]]
    shown = {name: intervention[name] for name in ("incident", "number", "attempt")}
    shown |= {"action": action_of(intervention), "reasons": fields(intervention)["reasons"]}
    return shown | {"choices": (intervention["details"] or {}).get("choices", []), "arms": arms}


def _choice_row(choice: dict[str, Any]) -> list[str]:
    return [
        _treatment(choice),
        count(choice["rewind_to"]),
        batches(choice["skip_from"], choice["skip_to"]),
        number(choice["prior"]),
        f"{choice['past']} of {choice['tried']}" if choice["tried"] else "none",
        number(choice["chance"]),
        f"{choice['cost']:.0f}",
    ]


def _arm_row(arm: dict[str, Any]) -> list[str]:
    loss, difference, error = (decode_number(arm[name]) for name in ("loss", "difference", "error"))
    figures = f"{loss:.4f}", f"{difference:+.4f} +- {error:.4f}"
    return [_treatment(arm), count(arm["steps"]), *figures, "yes" if arm["got_past"] else "no"]


def _treatment(of: dict[str, Any]) -> str:
    return f"{of['arm']} {of['remedy']}" if of["remedy"] else str(of["arm"])
