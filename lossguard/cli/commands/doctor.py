"""`lossguard doctor`: what is set, what works, and how to mend what does not."""

import argparse
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lossguard.cli.checks import collector as collector_checks
from lossguard.cli.checks import machine as machine_checks
from lossguard.cli.checks.check import NOT_SET, Check, State, problem, set_variables
from lossguard.cli.connection import add_options
from lossguard.cli.terminal import Style, Terminal, TerminalColumn, Text, print_json, table
from lossguard.run.settings import Settings
from lossguard.vocabulary.errors import ConfigurationError

SCOPES = ("report", "read", "operate")
STYLES = {State.OK: Style.GREEN, State.WARNING: Style.YELLOW, State.PROBLEM: Style.RED}
VARIABLES = (TerminalColumn(title="SETTING"), TerminalColumn(title="VALUE", min_width=10), TerminalColumn(title="FROM"))


def add_to(commands: Any) -> None:
    parser = commands.add_parser("doctor", help="say what is set, what works, and how to mend what does not")
    parser.add_argument("--directory", type=Path, help="folder for the spools (default: LOSSGUARD_DIR)")
    parser.add_argument(
        "--scope",
        action="append",
        choices=SCOPES,
        help="what the token must allow; may be repeated (default: report, what a trainer needs)",
    )
    add_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """1 if something stands in the way."""
    variables = set_variables(options, os.environ)
    given = {each["name"]: each["from"] for each in variables if each["from"].startswith("--")}
    checks = [replace(check, mend=_naming(check.mend, given)) for check in _checks(options)]
    num_problems = sum(check.state is State.PROBLEM for check in checks)
    if options.json:
        shown = {"ok": num_problems == 0, "settings": variables, "checks": [check.fields() for check in checks]}
        print_json(shown)
    else:
        _print(Terminal.of(), variables, checks)
    return 1 if num_problems else 0


def _checks(options: argparse.Namespace) -> list[Check]:
    try:
        settings = Settings.read(url=options.url, token=options.token, directory=options.directory)
    except ConfigurationError as error:
        return [problem("settings", str(error), "correct the setting; the other checks follow then")]
    return [
        *collector_checks.checks(settings, options.scope or SCOPES[:1]),
        *machine_checks.checks(settings, os.environ),
    ]


def _naming(mend: str, given: Mapping[str, str]) -> str:
    """Name the options that were given in place of their variables."""
    for variable, option in given.items():
        mend = mend.replace(variable, option)
    return mend


def _print(terminal: Terminal, variables: list[dict[str, str]], checks: list[Check]) -> None:
    given = [each for each in variables if each["from"] != NOT_SET]
    rows = [[Text(each["name"]), Text(each["value"]), Text(each["from"])] for each in given]
    for line in table(VARIABLES, rows, terminal.width):
        terminal.say(*line)
    terminal.say("")
    for check in checks:
        terminal.say(Text(f"{check.state:<8}", STYLES[check.state]), f"{check.name:<10} {check.sentence}")
        if check.mend:
            terminal.say(f"{'':<19}{check.mend}")
