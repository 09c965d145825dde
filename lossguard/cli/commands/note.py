"""`lossguard note`: a note of a person on a step of a run."""

import argparse
from typing import Any
from urllib.parse import quote

from lossguard.cli.connection import STEERING, add_confirmation, add_options, change, confirm, connected
from lossguard.cli.named_run import add_run, find
from lossguard.cli.terminal import Terminal, print_json
from lossguard.vocabulary.errors import ConfigurationError
from lossguard.vocabulary.protocol import is_step
from lossguard.vocabulary.wording import count


def add_to(commands: Any) -> None:
    parser = commands.add_parser("note", help="write a note on a step of a run")
    add_run(parser)
    parser.add_argument("text", metavar="TEXT", help="what you have to say")
    parser.add_argument("--step", type=int, metavar="N", help="the step that it is about (default: the newest one)")
    add_confirmation(parser)
    add_options(parser, *STEERING)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if not options.text.strip():
        raise ConfigurationError("the note is empty")
    if options.step is not None and not is_step(options.step):
        raise ConfigurationError(f"--step {options.step} must be a step, from 0")
    with connected(options) as client:
        found = find(client, options.which_run)
        at = "its newest step" if options.step is None else f"step {count(options.step)}"
        confirm(options, f"Write this note at {at} of {found['id']}?")
        path = f"/runs/{quote(found['id'], safe='')}/notes"
        made = change(client, "POST", path, {"step": options.step, "text": options.text})
    if options.json:
        print_json({"run": found["id"]} | {name: made[name] for name in ("id", "step", "text")})
    else:
        Terminal.of().say(f"noted at step {count(made['step'])} of {found['id']}")
    return 0
