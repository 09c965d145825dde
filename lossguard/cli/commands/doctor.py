"""`lossguard doctor`: what is set, what works, and how to mend what does not."""

import argparse
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lossguard.cli.checks import Check, State, of_collector, of_machine, problem
from lossguard.cli.connection import add_options
from lossguard.cli.terminal import Style, Terminal, TerminalColumn, Text, print_json
from lossguard.run.settings import VARIABLES, Settings
from lossguard.vocabulary.errors import ConfigurationError
from lossguard.vocabulary.secrets import mask_text

SCOPES = ("report", "read", "operate")
STYLES = {State.OK: Style.GREEN, State.WARNING: Style.YELLOW, State.PROBLEM: Style.RED}
COLUMNS = (TerminalColumn("SETTING"), TerminalColumn("VALUE", min_width=10), TerminalColumn("FROM"))
NOT_SET = "not set"
SECRET = ("LOSSGUARD_TOKEN", "LOSSGUARD_ORDER_KEY")


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
    variables = [_described(name, option, options, os.environ) for name, option in VARIABLES.items()]
    try:
        settings = Settings.read(url=options.url, token=options.token, directory=options.directory)
    except ConfigurationError as error:
        checks = [problem("settings", str(error), "correct the setting; the other checks follow then")]
    else:
        checks = [*of_collector(settings, options.scope or SCOPES[:1]), *of_machine(settings.directory, os.environ)]
    for each in variables:
        if each["from"].startswith("--"):  # advice names the option that was given in place of its variable
            checks = [replace(check, mend=check.mend.replace(each["name"], each["from"])) for check in checks]
    num_problems = sum(check.state is State.PROBLEM for check in checks)
    if options.json:
        print_json({"ok": num_problems == 0, "settings": variables, "checks": [check.fields() for check in checks]})
    else:
        _print(Terminal(), variables, checks)
    return 1 if num_problems else 0


def _described(name: str, option: str, options: argparse.Namespace, environment: Mapping[str, str]) -> dict[str, str]:
    """Name, value and origin of a setting; secrets are not shown."""
    given = getattr(options, option, None) if option else None
    value = str(given or environment.get(name) or "")
    origin = f"--{option}" if given else "environment" if value else NOT_SET
    hidden = f"({len(value)} characters)" if value and name in SECRET else mask_text(value)
    return {"name": name, "value": hidden or "-", "from": origin}


def _print(terminal: Terminal, variables: list[dict[str, str]], checks: list[Check]) -> None:
    terminal.say_table(COLUMNS, [list(each.values()) for each in variables if each["from"] != NOT_SET])
    terminal.say("")
    for check in checks:
        terminal.say(Text(f"{check.state:<8}", STYLES[check.state]), f"{check.name:<10} {check.sentence}")
        if check.mend:
            terminal.say(f"{'':<19}{check.mend}")
