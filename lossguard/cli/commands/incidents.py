"""`lossguard incidents`: the incidents of a run, or one of them with its reasons."""

import argparse
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from lossguard.cli.connection import add_options, connected, incident_page
from lossguard.cli.errors import CommandError, ExitCode
from lossguard.cli.interventions import action_of, is_holding, is_running, lines_of
from lossguard.cli.interventions import fields as intervention_fields
from lossguard.cli.named_run import Found, add_run, find
from lossguard.cli.terminal import Style, Terminal, TerminalColumn, Text, print_json, table
from lossguard.client.client import Client
from lossguard.vocabulary.states import IncidentState, Outcome
from lossguard.vocabulary.wording import count, incident_standing, number, recovery_sentence

COLUMNS = (
    TerminalColumn(title="N", right=True),
    TerminalColumn(title="KIND"),
    TerminalColumn(title="STATE"),
    TerminalColumn(title="ONSET", right=True),
    TerminalColumn(title="PEAK", right=True, rank=2),
    TerminalColumn(title="END", right=True),
    TerminalColumn(title="SIGNAL", rank=3),
    TerminalColumn(title="SCORE", right=True, rank=4),
    TerminalColumn(title="ACTION", min_width=10, rank=1),
)


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
    if options.number is None:
        _show_all(found, incidents, as_json=options.json)
    else:
        _show_one(found, incidents, options.number, as_json=options.json)
    return 0


def of_run(client: Client, run_id: str) -> list[Found]:
    """The incidents of a run, the oldest first."""
    return list(client.get(f"/runs/{quote(run_id, safe='')}/incidents"))


def fields(incident: Found, run: Found) -> dict[str, Any]:
    """An incident as `--json` prints it."""
    names = ("number", "kind", "state", "outcome", "signal", "onset_step", "detected_step", "peak_step", "end_step")
    details = incident.get("details") or {}
    shown = {name: incident[name] for name in (*names, "score", "segment", "opened_at", "changed_at", "verdict")}
    shown |= {name: details.get(name) for name in ("peak_value", "expected", "lasting_probability", "reasons")}
    shown["interventions"] = [intervention_fields(each) for each in _answers(incident, run)]
    return shown | {"dashboard": incident_page(run["id"], incident["number"])}


def rows(incidents: Sequence[Found], run: Found) -> list[list[Text]]:
    """Rows of a table with COLUMNS."""
    return [_row(each, run) for each in incidents]


def _row(incident: Found, run: Found) -> list[Text]:
    return [
        Text(str(incident["number"])),
        Text(incident["kind"]),
        state_text(incident, run),
        Text(count(incident["onset_step"])),
        Text(count(incident["peak_step"])),
        Text(count(incident["end_step"])),
        Text(incident["signal"]),
        Text(number(incident["score"])),
        Text(next((action_of(each) for each in reversed(_answers(incident, run))), "none")),
    ]


def state_text(incident: Found, run: Found) -> Text:
    """Return the standing of an incident and, once it is over, its outcome, in its colour."""
    details, is_held = incident.get("details") or {}, is_running(run) and any(map(is_holding, _answers(incident, run)))
    text = incident_standing(incident["state"], incident["outcome"], details, is_held=is_held)
    if incident["state"] != IncidentState.CLOSED or details.get("superseded_by") is not None:
        return Text(text, Style.YELLOW)
    return Text(text, Style.GREEN if incident["outcome"] == Outcome.RECOVERED else Style.RED)


def _answers(incident: Found, run: Found) -> list[Found]:
    return [each for each in run["interventions"] if each["incident"] == incident["number"]]


def _show_all(run: Found, incidents: Sequence[Found], *, as_json: bool) -> None:
    if as_json:
        print_json([fields(each, run) for each in incidents])
        return
    terminal = Terminal.of()
    if not incidents:
        terminal.say(f"{run['id']} has no incidents")
        return
    for line in table(COLUMNS, rows(incidents, run), terminal.width):
        terminal.say(*line)


def _show_one(run: Found, incidents: Sequence[Found], chosen: int, *, as_json: bool) -> None:
    incident = next((each for each in incidents if each["number"] == chosen), None)
    if incident is None:
        known = f"it has {len(incidents)}" if incidents else "it has none"
        raise CommandError(f"run {run['id']} has no incident {chosen}: {known}", ExitCode.NOT_FOUND)
    if as_json:
        print_json(fields(incident, run))
        return
    terminal, shown = Terminal.of(), fields(incident, run)
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
    for line in (line for each in _answers(incident, run) for line in lines_of(each)):
        terminal.say(line)
    if shown["dashboard"]:
        terminal.say(shown["dashboard"])
