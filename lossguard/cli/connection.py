"""The collector that a command asks, and the pages of its dashboard."""

import argparse
import getpass
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from lossguard.cli.errors import CommandError, exit_code_of, sentence_of
from lossguard.cli.terminal import printable
from lossguard.client.client import Client
from lossguard.run.settings import Settings
from lossguard.vocabulary.errors import CollectorError, ConfigurationError, Unreachable
from lossguard.vocabulary.protocol import MAX_PERSON, PERSON_HEADER

T = TypeVar("T")
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


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings of the options or the environment. Raises ConfigurationError where they name no collector."""
    settings = Settings.read(mode="offline", url=options.url, token=options.token)
    if settings.url is None:
        raise ConfigurationError("this command needs a collector: give its address with --url, or set LOSSGUARD_URL")
    return settings


def connected(options: argparse.Namespace, *, timeout: float = TIMEOUT) -> Client:
    """A client of the collector that the options or the environment name. Raises ConfigurationError."""
    settings = settings_of(options)
    assert settings.url is not None
    return Client(settings.url, settings.token, timeout=timeout)


def change(client: Client, method: str, path: str, body: Mapping[str, Any]) -> Any:
    """Send what changes something, in the name of the person who runs the command; returns the collector's answer.

    Raises CommandError, which says whether something may have changed.
    """
    try:
        person = getpass.getuser()[:MAX_PERSON]
    except (OSError, KeyError, ImportError):  # a container without an entry for its user
        person = "unknown"
    try:
        return client.request(method, path, body, headers={PERSON_HEADER: quote(person)})
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


def dashboard_page(name: str, **query: object) -> str | None:
    """The address of a page of the dashboard; None where LOSSGUARD_DASHBOARD_URL does not say where it is."""
    base = os.environ.get("LOSSGUARD_DASHBOARD_URL")
    return f"{base.rstrip('/')}/{name}?{urlencode(query)}" if base else None
