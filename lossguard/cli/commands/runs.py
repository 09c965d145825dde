"""`lossguard runs`: a table of runs."""

import argparse
import time
from collections.abc import Mapping
from itertools import islice
from typing import Any

from lossguard.cli.connection import add_options, connected
from lossguard.cli.named_run import NAMED, PAGE, Found, listed
from lossguard.cli.terminal import Style, Terminal, TerminalColumn, Text, print_json
from lossguard.vocabulary.errors import ConfigurationError
from lossguard.vocabulary.run_search import ARCHIVED, RunOrder, parse
from lossguard.vocabulary.states import RunState, RunVerdict
from lossguard.vocabulary.wording import MISSING, ago, count, number

COLUMNS = (
    TerminalColumn("VERDICT"),
    TerminalColumn("NAME", min_width=8),
    TerminalColumn("ID"),  # never cut: people type it
    TerminalColumn("PROJECT", min_width=7, rank=3),
    TerminalColumn("STEP", right=True),
    TerminalColumn("LOSS", right=True),
    TerminalColumn("OPEN", right=True, rank=1),
    TerminalColumn("WAITING", right=True, rank=1),
    TerminalColumn("LAST REPORT", right=True, rank=2),
)
STYLES: Mapping[str, Style] = {
    RunVerdict.HEALTHY: Style.GREEN,
    RunVerdict.RECOVERING: Style.YELLOW,
    RunVerdict.DIVERGED: Style.RED,
    RunVerdict.HELD: Style.RED,
    RunVerdict.STALLED: Style.RED,
    RunVerdict.UNWATCHED: Style.YELLOW,
    RunVerdict.ENDED_OPEN: Style.RED,
}
LIMIT = 50
SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def add_to(commands: Any) -> None:
    parser = commands.add_parser("runs", help="list the runs of a collector")
    parser.add_argument("--project", help="only the runs of this project")
    parser.add_argument("--state", choices=[each.value for each in RunState], help="only the runs in this state")
    parser.add_argument("--tag", action="append", default=[], help="only the runs with this tag; may be repeated")
    parser.add_argument(
        "--search", metavar="WORDS", help="words and conditions, such as: lr>1e-3 state:running loss<2.5"
    )
    parser.add_argument("--since", metavar="AGO", help="only runs that reported in the last AGO: 90s, 30m, 12h or 7d")
    orders = [each.value for each in RunOrder]
    parser.add_argument(
        "--sort", choices=orders, default=orders[0], help=f"which runs come first (default: {orders[0]})"
    )
    parser.add_argument("--archived", action="store_true", help="archived runs too")
    parser.add_argument("--limit", type=int, default=LIMIT, metavar="N", help=f"at most N runs (default: {LIMIT})")
    add_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.limit < 1:
        raise ConfigurationError(f"--limit {options.limit} must be a number of runs, from 1")
    query = _query(options)
    with connected(options) as client:
        shown = list(islice(listed(client, query, limit=min(options.limit + 1, PAGE)), options.limit + 1))
        is_empty = not shown and not options.json and next(listed(client, NAMED, limit=1), None) is None
    has_more, shown = len(shown) > options.limit, shown[: options.limit]
    if options.json:
        print_json([fields(each) for each in shown])
        return 0
    terminal = Terminal()
    if not shown:
        terminal.say("there are no runs" if is_empty else "no run fits")
        return 0
    terminal.say_table(COLUMNS, [_row(each, time.time()) for each in shown])
    if has_more:
        terminal.say(Text(f"there are more: --limit {2 * options.limit}", Style.DIM))
    return 0


def _query(options: argparse.Namespace) -> list[tuple[str, str | float]]:
    """Parameters of the request to the collector. Raises ConfigurationError for a search that cannot be read."""
    search = parse(options.search or "")
    if search.problems:
        raise ConfigurationError(f"--search: {' '.join(search.problems)}")
    query: list[tuple[str, str | float]] = [("sort", options.sort), *(("tag", tag) for tag in options.tag)]
    if not options.archived and ARCHIVED not in search.names:
        query.append(("archived", "false"))
    since = None if options.since is None else time.time() - _seconds_of(options.since)
    values = {"project": options.project, "state": options.state, "search": options.search or None, "since": since}
    return query + [(name, value) for name, value in values.items() if value is not None]


def _seconds_of(text: str) -> float:
    number, unit = text[:-1], text[-1:]
    if unit not in SECONDS or not number.isdecimal():
        raise ConfigurationError(f"--since {text} must be a whole number and a unit: 90s, 30m, 12h or 7d")
    return int(number) * SECONDS[unit]


def fields(run: Found) -> dict[str, Any]:
    """A run as `lossguard runs --json` prints it."""
    names = ("id", "name", "project", "state", "verdict", "sentence", "tags", "note", "step", "total_steps", "metrics")
    times = ("started_at", "last_report_at", "finished_at", "archived_at")
    return {name: run.get(name) for name in (*names, "open_incidents", "waiting", *times)}


def _row(run: Found, now: float) -> list[str | Text]:
    num_open, num_waiting = run.get("open_incidents"), run.get("waiting")
    return [
        verdict_text(run, run["sentence"].partition(":")[0]),
        run["name"] or MISSING,
        run["id"],
        run["project"],
        count(run.get("step")),
        number((run.get("metrics") or {}).get("loss")),
        Text(count(num_open), Style.YELLOW if num_open else None),
        Text(count(num_waiting), Style.RED if num_waiting else None),
        ago(run["last_report_at"], now),
    ]


def verdict_text(run: Found, text: str) -> Text:
    """The verdict of a run, as a word or a sentence, in its colour."""
    return Text(text, STYLES.get(run["verdict"]))
