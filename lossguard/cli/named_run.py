"""The run that a command means: RUN is the id of a run, the beginning of one, its name, or `latest`."""

import argparse
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any
from urllib.parse import urlencode

from lossguard.cli.errors import CommandError, ExitCode
from lossguard.client.client import Client
from lossguard.vocabulary.errors import NotFound
from lossguard.vocabulary.protocol import is_run_id

LATEST = "latest"
MAX_CANDIDATES = 8
Found = dict[str, Any]
Query = Sequence[tuple[str, str | float]]
PAGE = 500
"""Runs that are asked for at once."""
NAMED: Query = (("fields", "id,name,state,started_at"),)
"""Fields that tell runs apart."""


def add_run(parser: argparse.ArgumentParser) -> None:
    """The argument RUN."""
    parser.add_argument("which_run", metavar="RUN", help="id of the run, the beginning of one, its name, or `latest`")


def listed(client: Client, query: Query = (), *, limit: int = PAGE) -> Iterator[Found]:
    """Yield the state of each run, the newest first, `limit` at a time, each page when it is needed.

    `query`: fields of GET /overview.
    """
    return chain.from_iterable(client.pages(f"/overview?{urlencode([*query, ('limit', limit)])}"))


def find(client: Client, text: str) -> Found:
    """The run that `text` names, as GET /runs/ID answers. Raises CommandError when it names none, or several."""
    if is_run_id(text) and text != LATEST:
        try:
            return of(client, text)
        except NotFound:
            pass
    return of(client, chosen(text, _candidates(client, text)))


def _candidates(client: Client, text: str) -> list[Found]:
    """The runs that `text` may name: all of these, and others."""
    first = list(islice(listed(client, NAMED, limit=1), 1))
    if not first or text == LATEST:
        return first
    if '"' in text or not text:  # a search cannot name it
        return list(listed(client, NAMED))
    searched = (listed(client, [*NAMED, ("search", f'{field}"{text}"')]) for field in ("name=", "id:"))
    found = {run["id"]: run for runs in searched for run in runs}
    return list(found.values()) or first


def of(client: Client, run_id: str) -> Found:
    """The run with this id. Raises NotFound."""
    run: Found = client.get(f"/runs/{run_id}")
    return run


def chosen(text: str, runs: Sequence[Found]) -> str:
    """The id of the run, among these (the newest first), that `text` names. Raises CommandError."""
    if text == LATEST and runs:
        return str(max(runs, key=lambda run: run["started_at"])["id"])
    with_id, with_name = ([run for run in runs if run[field] == text] for field in ("id", "name"))
    beginning = [run for run in runs if text and run["id"].startswith(text)]
    matching = with_id or with_name or beginning
    if len(matching) == 1:
        return str(matching[0]["id"])
    if matching:
        shown = ", ".join(map(_described, matching[:MAX_CANDIDATES]))
        more = f" and {len(matching) - MAX_CANDIDATES} more" if len(matching) > MAX_CANDIDATES else ""
        sentence = f"{text!r:.200} names {len(matching)} runs: {shown}{more}; give the id of one"
    else:
        known = "`lossguard runs` lists those that there are" if runs else "there are no runs"
        sentence = f"no run has the id or the name {text!r:.200}; {known}"
    raise CommandError(sentence, ExitCode.NOT_FOUND)


def _described(run: Found) -> str:
    named = f", {run['name']}" if run["name"] and run["name"] != run["id"] else ""
    return f"{run['id']} ({run['state']}{named})"
