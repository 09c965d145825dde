"""The collector that a command asks, the pages of its dashboard, and the options of the commands that read a source."""

import argparse
import getpass
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlencode

from lossguard.cli.arguments import add_pattern_option
from lossguard.cli.errors import CommandError, exit_code_of, sentence_of
from lossguard.cli.terminal import printable
from lossguard.client.client import Client
from lossguard.run.settings import Settings
from lossguard.vocabulary.errors import CollectorError, ConfigurationError, Unreachable
from lossguard.vocabulary.protocol import MAX_PERSON, PERSON_HEADER

if TYPE_CHECKING:
    from lossguard.sources.formats import Layout
    from lossguard.sources.names import NameMap

# The collector: its options, and the client that they give.

T = TypeVar("T")
STEERING = ("read", "operate")
"""Scopes of what changes something: the run is looked up first."""
TIMEOUT = 30.0
"""Seconds to wait for an answer."""


def add_options(parser: argparse.ArgumentParser, *scopes: str) -> None:
    """--url, --token and --json; `scopes`: those that the token needs, without any `read`."""
    needed = " and ".join(scopes or ("read",))
    add_json_option(parser)
    parser.add_argument("--url", help="the collector's address (default: LOSSGUARD_URL)")
    parser.add_argument("--token", help=f"bearer token that allows {needed} (default: LOSSGUARD_TOKEN)")


def add_json_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, errors included (docs/terminal.md)")


def add_confirmation(parser: argparse.ArgumentParser) -> None:
    """--yes: of a command that asks first."""
    parser.add_argument("--yes", action="store_true", help="do not ask again; --json does not ask either")


def connected(options: argparse.Namespace, *, timeout: float = TIMEOUT) -> Client:
    """A client of the collector that the options or the environment name. Raises ConfigurationError."""
    settings = Settings.read(mode="offline", url=options.url, token=options.token)
    return Client(address(options), settings.token, timeout=timeout)


def address(options: argparse.Namespace) -> str:
    """Return the address of the collector, from the options or the environment. Raises ConfigurationError."""
    url = Settings.read(mode="offline", url=options.url).url
    if url is None:
        raise ConfigurationError("this command needs a collector: give its address with --url, or set LOSSGUARD_URL")
    return url


def change(client: Client, method: str, path: str, body: Mapping[str, Any]) -> Any:
    """Send what changes something, in the name of the person who runs the command; returns the collector's answer.

    Raises CommandError, which says whether something may have changed.
    """
    try:
        return client.request(method, path, body, headers={PERSON_HEADER: quote(_person())})
    except CollectorError as problem:
        is_unsure = isinstance(problem, Unreachable) and problem.may_have_arrived
        what = "look before you try again: it may have arrived" if is_unsure else "nothing was changed"
        raise CommandError(f"{sentence_of(problem)}; {what}", exit_code_of(problem)) from problem


def read_back(done: str, read: Callable[[], T]) -> T:
    """Return what a change has led to. If that cannot be read, raise a CommandError that says the change was made."""
    try:
        return read()
    except CollectorError as problem:
        sentence = f"{done}; what it led to cannot be read: {sentence_of(problem)}"
        raise CommandError(sentence, exit_code_of(problem)) from problem


def confirm(options: argparse.Namespace, question: str) -> None:
    """Ask on the terminal, unless --yes or --json is given. Raises CommandError without a yes."""
    if options.yes or options.json:
        return
    try:
        answer = input(f"{printable(question)} [y/N] ")
    except EOFError:
        print(flush=True)  # the question stands on a line of its own
        raise CommandError(
            "nothing was changed: nobody answers here; give --yes to go on without being asked"
        ) from None
    if answer.strip().lower() not in ("y", "yes"):
        raise CommandError("nothing was changed")


def _person() -> str:
    try:
        return getpass.getuser()[:MAX_PERSON]
    except (OSError, KeyError, ImportError):  # a container without an entry for its user
        return "unknown"


# Pages of the dashboard, where LOSSGUARD_DASHBOARD_URL says where it is.

VARIABLE = "LOSSGUARD_DASHBOARD_URL"


def run_page(run_id: str, environment: Mapping[str, str] | None = None) -> str | None:
    """The page of a run; None where nobody says where the dashboard is."""
    return _page("run", {"run": run_id}, environment)


def incident_page(run_id: str, number: int, environment: Mapping[str, str] | None = None) -> str | None:
    """The page of an incident; None where nobody says where the dashboard is."""
    return _page("incident", {"run": run_id, "incident": number}, environment)


def _page(name: str, query: Mapping[str, object], environment: Mapping[str, str] | None) -> str | None:
    base = (os.environ if environment is None else environment).get(VARIABLE)
    return f"{base.rstrip('/')}/{name}?{urlencode(query)}" if base else None


# Options of `lossguard watch` and `lossguard import`, which read what other tools have logged.


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Which columns and names are read, and where the rows go."""
    parser.add_argument("--step", metavar="COLUMN", help="column of the steps in a CSV or JSON lines (default: found)")
    parser.add_argument("--time", metavar="COLUMN", help="column of the times (default: found)")
    add_pattern_option(parser)
    parser.add_argument("--map", action="append", default=[], metavar="METRIC=NAME", help="as in loss=train/ce")
    parser.add_argument("--directory", type=Path, help="folder for the spools (default: LOSSGUARD_DIR)")
    parser.add_argument("--offline", action="store_true", help="deliver nothing; `lossguard sync` does it later")
    parser.add_argument("--url", help="the collector's address (default: LOSSGUARD_URL)")
    parser.add_argument("--token", help="bearer token (default: LOSSGUARD_TOKEN)")


def layout_of(options: argparse.Namespace, names: "NameMap") -> "Layout":
    """Return the layout of rows in the source, from the options. Raises ConfigurationError."""
    from lossguard.sources.columns import Columns
    from lossguard.sources.formats import WITH_PATTERN

    columns = Columns(options.step, options.time)
    if options.pattern is None:
        return columns
    if columns != Columns() or options.format not in (None, *WITH_PATTERN):
        raise ConfigurationError("--pattern reads printed lines: leave out --step, --time and any --format but log")
    from lossguard.sources.readers.printed_lines import own_pattern  # its regular expressions take a while

    return own_pattern(options.pattern, names)


def settings_of(options: argparse.Namespace) -> Settings:
    """Return the settings of the options and the environment. Raises ConfigurationError.

    The run may be of another machine, or of the past: no hardware is sampled.
    """
    settings = Settings.read(
        mode="offline" if options.offline else None,
        url=options.url,
        token=options.token,
        directory=options.directory,
        run_id=options.run_id,
    )
    return replace(settings, hardware_interval=None)
