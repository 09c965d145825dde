"""`lossguard tail`: the steps of a run as they come, and its incidents and interventions as lines of their own."""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

from lossguard.commands.connection import add_options, connected
from lossguard.commands.named_run import add_run, find
from lossguard.commands.readable import count, number
from lossguard.commands.run_following import METRICS, NON_FINITE, Event, Follower
from lossguard.commands.terminal import Style, Terminal, Text, print_json, printable
from lossguard.errors import ConfigurationError, Unreachable
from lossguard.states import RunState

INTERVAL = 2.0
MAX_WAIT = 30.0
"""Seconds between two attempts while no collector answers, at most."""
LAST = 10
STYLES = {"incident": Style.YELLOW, "intervention": Style.BLUE, "segment": Style.BLUE, "state": Style.BOLD}


def add_to(commands: Any) -> None:
    parser = commands.add_parser("tail", help="follow a run: its new steps, incidents and interventions")
    add_run(parser)
    parser.add_argument(
        "--metric", action="append", metavar="NAME", help=f"may be repeated (default: {', '.join(METRICS)})"
    )
    parser.add_argument("--last", type=int, default=LAST, metavar="N", help=f"begin N steps back (default: {LAST})")
    parser.add_argument(
        "--interval", type=float, default=INTERVAL, metavar="SECONDS", help=f"between two looks (default: {INTERVAL:g})"
    )
    add_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Ends with the run: 0 if it has finished, 1 if it was interrupted or has failed."""
    if not 0.1 <= options.interval <= 3600:
        raise ConfigurationError(f"--interval {options.interval:g} must be seconds, from 0.1 to 3600")
    terminal = Terminal.of()
    with connected(options) as client:
        found = find(client, options.which_run)
        follower = Follower(client, found, options.metric or (), last=max(0, options.last))
        while True:
            for event in _patiently(follower.look, options):
                _print(terminal, event, as_json=options.json)
            if follower.state != RunState.RUNNING:
                return 0 if follower.state == RunState.FINISHED else 1
            time.sleep(options.interval)


def _patiently(look: Callable[[], list[Event]], options: argparse.Namespace) -> list[Event]:
    """What there is to see, however long no collector answers."""
    wait, is_lost = options.interval, False
    while True:
        try:
            found = look()
        except Unreachable as problem:
            if not is_lost:
                _say_about_connection(f"{problem}; it is asked again until it answers", options)
            is_lost = True
            time.sleep(max(wait, problem.retry_after))
            wait = min(MAX_WAIT, 2 * wait)
            continue
        if is_lost:
            _say_about_connection("the collector answers again", options)
        return found


def _say_about_connection(sentence: str, options: argparse.Namespace) -> None:
    if options.json:
        print_json({"event": "connection", "sentence": sentence}, indent=None)
    else:
        print(f"lossguard: {printable(sentence)}", file=sys.stderr, flush=True)


def _print(terminal: Terminal, event: Event, *, as_json: bool) -> None:
    if as_json:
        print_json(event.fields(), indent=None)
    elif event.kind == "step":
        values = [_value(name, value) for name, value in event.facts["metrics"].items()]
        terminal.say(f"step {count(event.facts['step']):>9}", *values)
    else:
        terminal.say(Text(event.sentence, STYLES.get(event.kind)))


def _value(name: str, value: Any) -> Text:
    if value == NON_FINITE:
        return Text(f"  {name} not finite", Style.RED)
    return Text(f"  {name} {number(value):<8}")
