"""`lossguard runs`: a table of runs, the newest first."""

import argparse
import time
from typing import Any

from lossguard.commands.connection import add_options, connected
from lossguard.commands.named_run import Found, listed
from lossguard.commands.readable import MISSING, ago, count, number
from lossguard.commands.run_filter import matches, read
from lossguard.commands.table import Column, table
from lossguard.commands.terminal import Style, Terminal, Text, print_json
from lossguard.errors import ConfigurationError
from lossguard.run_search import ARCHIVED, Search
from lossguard.states import RunState

COLUMNS = (
    Column(title="STATE"),
    Column(title="NAME", min_width=8),
    Column(title="ID"),  # never cut: people type it
    Column(title="PROJECT", min_width=7, rank=3),
    Column(title="STEP", right=True),
    Column(title="LOSS", right=True),
    Column(title="OPEN", right=True, rank=1),
    Column(title="WAITING", right=True, rank=1),
    Column(title="LAST REPORT", right=True, rank=2),
)
STYLES = {RunState.RUNNING: Style.GREEN, RunState.FAILED: Style.RED, RunState.INTERRUPTED: Style.YELLOW}
LIMIT = 50


def add_to(commands: Any) -> None:
    parser = commands.add_parser("runs", help="list the runs of a collector, the newest first")
    parser.add_argument("--project", help="only the runs of this project")
    parser.add_argument("--state", choices=[each.value for each in RunState], help="only the runs in this state")
    parser.add_argument("--tag", action="append", default=[], help="only the runs with this tag; may be repeated")
    parser.add_argument(
        "--search", metavar="WORDS", help="words and conditions, such as: lr>1e-3 state:running loss<2.5"
    )
    parser.add_argument("--archived", action="store_true", help="archived runs too")
    parser.add_argument("--limit", type=int, default=LIMIT, metavar="N", help=f"at most N runs (default: {LIMIT})")
    add_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.limit < 1:
        raise ConfigurationError(f"--limit {options.limit} must be a number of runs, from 1")
    search = read(options.search) if options.search else None
    with connected(options) as client:
        all_runs = listed(client, project=options.project, config=search is not None)
    found = [each for each in all_runs if _is_wanted(each, options, search)]
    shown = found[: options.limit]
    if options.json:
        print_json([fields(each) for each in shown])
        return 0
    terminal = Terminal.of()
    if not found:
        terminal.say("no run fits" if all_runs or options.project else "there are no runs")
        return 0
    for line in table(COLUMNS, [_row(each, time.time()) for each in shown], terminal.width):
        terminal.say(*line)
    if len(shown) < len(found):
        terminal.say(Text(f"{len(found) - len(shown)} more: --limit {len(found)}", Style.DIM))
    return 0


def _is_wanted(run: Found, options: argparse.Namespace, search: Search | None) -> bool:
    archived = options.archived or (search is not None and ARCHIVED in search.names)
    return (
        options.state in (None, run["state"])
        and set(options.tag) <= set(run.get("tags") or ())
        and (archived or run.get("archived_at") is None)
        and (search is None or matches(search, run))
    )


def fields(run: Found) -> dict[str, Any]:
    """A run as `lossguard runs --json` prints it."""
    names = ("id", "name", "project", "state", "tags", "note", "step", "total_steps", "metrics")
    times = ("started_at", "last_report_at", "finished_at", "archived_at")
    return {name: run.get(name) for name in (*names, "open_incidents", "waiting", *times)}


def _row(run: Found, now: float) -> list[Text]:
    num_open, num_waiting = run.get("open_incidents"), run.get("waiting")
    return [
        state_text(run["state"]),
        Text(run["name"] or MISSING),
        Text(run["id"]),
        Text(run["project"]),
        Text(count(run.get("step"))),
        Text(number((run.get("metrics") or {}).get("loss"))),
        Text(count(num_open), Style.YELLOW if num_open else None),
        Text(count(num_waiting), Style.RED if num_waiting else None),
        Text(ago(run["last_report_at"], now)),
    ]


def state_text(state: str) -> Text:
    """The state of a run in its colour."""
    return Text(state, next((style for known, style in STYLES.items() if known == state), None))
