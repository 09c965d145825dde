"""`lossguard incidents`: the incidents of a run, or one of them with its reasons."""

import argparse
from collections.abc import Sequence
from typing import Any

from lossguard.cli import interventions
from lossguard.cli.connection import add_options, connected, dashboard_page
from lossguard.cli.errors import CommandError, ExitCode
from lossguard.cli.named_run import Found, add_run, find
from lossguard.cli.terminal import Style, Terminal, TerminalColumn, Text, print_json
from lossguard.client.client import Client
from lossguard.vocabulary.states import IncidentState, Outcome
from lossguard.vocabulary.wording import count, incident_standing, number, recovery_sentence

COLUMNS = (
    TerminalColumn("N", right=True),
    TerminalColumn("KIND"),
    TerminalColumn("STATE"),
    TerminalColumn("ONSET", right=True),
    TerminalColumn("PEAK", right=True, rank=2),
    TerminalColumn("END", right=True),
    TerminalColumn("SIGNAL", rank=3),
    TerminalColumn("SCORE", right=True, rank=4),
    TerminalColumn("ACTION", min_width=10, rank=1),
)
NAMES = ("number", "kind", "state", "outcome", "signal", "onset_step", "detected_step", "peak_step", "end_step")
DETAILS = ("peak_value", "expected", "lasting_probability", "reasons")


def add_to(commands: Any) -> None:
    parser = commands.add_parser("incidents", help="list the incidents of a run, or say everything of one")
    add_run(parser)
    parser.add_argument("number", metavar="N", type=int, nargs="?", help="number of an incident in the run")
    add_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    with connected(options) as client:
        found = find(client, options.which_run)
        incidents = of_run(client, found["id"])
    if options.number is not None:
        _show_one(found, incidents, options.number, as_json=options.json)
    elif options.json:
        print_json([fields(each, found) for each in incidents])
    elif incidents:
        Terminal().say_table(COLUMNS, rows(incidents, found))
    else:
        Terminal().say(f"{found['id']} has no incidents")
    return 0


def of_run(client: Client, run_id: str) -> list[Found]:
    """The incidents of a run, the oldest first."""
    return list(client.get(f"/runs/{run_id}/incidents"))


def fields(incident: Found, run: Found) -> dict[str, Any]:
    """An incident as `--json` prints it."""
    details = incident.get("details") or {}
    shown = {name: incident[name] for name in (*NAMES, "score", "segment", "opened_at", "changed_at", "verdict")}
    shown |= {name: details.get(name) for name in DETAILS}
    shown["interventions"] = [interventions.fields(each) for each in _answers(incident, run)]
    return shown | {"dashboard": dashboard_page("incident", run=run["id"], incident=incident["number"])}


def rows(incidents: Sequence[Found], run: Found) -> list[list[str | Text]]:
    """Rows of a table with COLUMNS."""
    return [
        [
            str(each["number"]),
            each["kind"],
            state_text(each, run),
            count(each["onset_step"]),
            count(each["peak_step"]),
            count(each["end_step"]),
            each["signal"],
            number(each["score"]),
            next(map(interventions.action_of, reversed(_answers(each, run))), "none"),
        ]
        for each in incidents
    ]


def state_text(incident: Found, run: Found) -> Text:
    """Return the standing of an incident and, once it is over, its outcome, in its colour."""
    details = incident.get("details") or {}
    is_held = interventions.is_running(run) and any(map(interventions.is_holding, _answers(incident, run)))
    text = incident_standing(incident["state"], incident["outcome"], details, is_held=is_held)
    if incident["state"] != IncidentState.CLOSED or details.get("superseded_by") is not None:
        return Text(text, Style.YELLOW)
    return Text(text, Style.GREEN if incident["outcome"] == Outcome.RECOVERED else Style.RED)


def _answers(incident: Found, run: Found) -> list[Found]:
    return [each for each in run["interventions"] if each["incident"] == incident["number"]]


def _show_one(run: Found, incidents: Sequence[Found], chosen: int, *, as_json: bool) -> None:
    incident = next((each for each in incidents if each["number"] == chosen), None)
    if incident is None:
        known = f"it has {len(incidents)}" if incidents else "it has none"
        raise CommandError(f"run {run['id']} has no incident {chosen}: {known}", ExitCode.NOT_FOUND)
    shown = fields(incident, run)
    if as_json:
        print_json(shown)
        return
    terminal = Terminal()
    terminal.say(
        Text(f"Incident {chosen} of {run['id']}", Style.BOLD), f": {incident['kind']}, ", state_text(incident, run)
    )
    terminal.say(
        f"onset step {count(incident['onset_step'])}, detected {count(incident['detected_step'])}, "
        f"peak {count(incident['peak_step'])}, end {count(incident['end_step'])}"
    )
    terminal.say(
        f"{incident['signal']} {number(shown['peak_value'])} at the peak, {number(shown['expected'])} expected; "
        f"score {number(incident['score'])} (1 is the threshold)"
    )
    recovery = recovery_sentence(incident["kind"], incident["state"], incident.get("details") or {})
    for reason in filter(None, [recovery, *(shown["reasons"] or ())]):
        terminal.say(f"  {reason}")
    if incident["verdict"]:
        terminal.say(f"Cause: {incident['verdict'].get('sentence', incident['verdict'].get('cause'))}")
    for each in _answers(incident, run):
        for line in interventions.lines_of(each):
            terminal.say(line)
    if shown["dashboard"]:
        terminal.say(shown["dashboard"])
