"""The parser of the command line, from the commands that are asked for."""

import argparse
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import NoReturn

from lossguard.cli.errors import ExitCode, print_error
from lossguard.vocabulary.errors import ConfigurationError

MODULE_OF = {
    **{name: name for name in ("runs", "show", "incidents", "series", "tail")},
    "export": "series",
    **dict.fromkeys(("approve", "reject", "rollback", "hold", "release", "note"), "steering"),
    **{name: name for name in ("policy", "launch")},
    **dict.fromkeys(("import", "watch"), "sources"),
    **dict.fromkeys(("sync", "trim"), "spools"),
    **{name: name for name in ("doctor", "completion")},
}
"""The commands, each with its module in `lossguard.cli.commands`."""
POSIX = ("fcntl", "resource", "termios")
"""Modules that Windows has not."""
DESCRIPTION = "Runs of a Lossguard collector in a terminal, and what records and delivers them."


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments as the other errors are said: in one line, or as one JSON object."""

    as_json = False

    def error(self, message: str) -> NoReturn:
        if self.as_json:
            print_error(message, ExitCode.INVALID, as_json=True)
            raise SystemExit(ExitCode.INVALID)
        super().error(message)


class Version(argparse.Action):
    """Looked up when it is asked for, as the metadata of packages take time."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest=argparse.SUPPRESS, default=argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_others: object) -> NoReturn:
        from importlib import metadata  # it loads what `lossguard launch` does not wait for

        print(f"lossguard {metadata.version('lossguard')}")
        parser.exit()


def parser_of(names: Iterable[str], *, as_json: bool = False) -> argparse.ArgumentParser:
    """The parser of these commands; of the others nothing is imported."""
    kind = type("Parser", (Parser,), {"as_json": as_json})  # that of each command is made with it
    parser: argparse.ArgumentParser = kind(prog="lossguard", description=DESCRIPTION)
    parser.add_argument("--version", action=Version, help="print the version of the SDK and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in dict.fromkeys(MODULE_OF[name] for name in names):
        try:
            import_module(f"lossguard.cli.commands.{module}").add_to(commands)
        except ModuleNotFoundError as problem:
            if problem.name not in POSIX:
                raise
            refused = commands.add_parser(module, help="(not on Windows)", add_help=False)
            refused.add_argument("arguments", nargs=argparse.REMAINDER)
            refused.set_defaults(run=_refuse)
    return parser


def _refuse(options: argparse.Namespace) -> NoReturn:
    raise ConfigurationError(f"lossguard {options.command} needs Linux; on Windows use WSL 2")


def add_pattern_option(parser: argparse.ArgumentParser) -> None:
    """--pattern: of the commands that read printed lines."""
    parser.add_argument(
        "--pattern",
        metavar="REGEX",
        help=r"how a printed line shows its step and its loss: 'step:(?P<step>\d+).*loss:(?P<loss>\S+)'",
    )
