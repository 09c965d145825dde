"""`lossguard tail`: steps and events of a run as they come."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lossguard.cli import interventions
from lossguard.cli.commands import incidents, series
from lossguard.cli.connection import add_options, connected
from lossguard.cli.named_run import Found, add_run, find, of
from lossguard.cli.terminal import Style, Terminal, Text, print_json, printable
from lossguard.client.client import Client
from lossguard.vocabulary.errors import ConfigurationError, Unreachable
from lossguard.vocabulary.states import INTERVENTIONS_UNDER_WAY, IncidentState, RunState
from lossguard.vocabulary.wording import count, number

# News of a run since the last look: its steps, incidents, interventions, segments and state.

METRICS = ("loss", "grad_norm", "lr")
NON_FINITE = "non-finite"
"""Stands for a value that is NaN or infinite: buckets do not say which of them."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that is new. `kind`: step, incident, intervention, segment or state."""

    kind: str
    sentence: str
    facts: dict[str, Any] = field(default_factory=dict)
    is_over: bool = False
    """True if nothing more will happen to it."""


class RunEvents:
    """Remembers what of a run was seen already. A failed look changes nothing: the next one sees all of it."""

    def __init__(self, client: Client, run: Found, metrics: Sequence[str], *, last: int) -> None:
        """The first look begins `last` steps before the newest one of the run. Without `metrics`: those of METRICS that
        it reports."""
        self._client, self._run_id, self._metrics = client, run["id"], metrics
        self._segment = max((each["number"] for each in run["segments"]), default=None)
        newest = run["newest_step"]
        self._next_step = 0 if newest is None else max(0, newest["step"] + 1 - last)
        self._seen: set[tuple[Any, ...]] = set()
        self.state = ""
        """State of the run as of the last look."""

    def look(self) -> list[Event]:
        """Return what is new. Raises CollectorError."""
        run = of(self._client, self._run_id)
        found = incidents.of_run(self._client, self._run_id)
        known = [*(_of_incident(each, run) for each in found), *map(_of_intervention, run["interventions"])]
        news = [each for each in known if _standing(each) not in self._seen]
        steps, segment, next_step = self._steps(run)
        state = Event("state", f"run {run['id']} is {run['state']}", {"run": run["id"], "state": run["state"]})
        change = [state] if run["state"] != self.state else []
        is_first = not self.state
        self._seen, self._segment, self._next_step = set(map(_standing, known)), segment, next_step
        self.state = run["state"]
        if is_first:  # what was over before is not news
            return [*change, *(each for each in news if not each.is_over), *steps]
        return [*news, *steps, *change]

    def _steps(self, run: Found) -> tuple[list[Event], int | None, int]:
        """(the new steps, with the beginnings of new segments between; the newest segment; the next step)."""
        events: list[Event] = []
        segment, next_step = self._segment, self._next_step
        metrics = self._metrics or [name for name in METRICS if name in run["metrics"]] or run["metrics"][:1]
        for each in run["segments"]:
            if segment is not None and each["number"] < segment:
                continue
            if each["number"] != segment:
                sentence = f"segment {each['number']} from step {count(each['fork_step'])}: {each['reason']}"
                facts = {name: each[name] for name in ("number", "parent", "fork_step", "reason")}
                events.append(Event("segment", sentence, facts))
                segment, next_step = each["number"], each["fork_step"] or 0
            if each["last_step"] is not None and each["last_step"] >= next_step:
                events += self._rows(metrics, each["number"], next_step, each["last_step"])
                next_step = each["last_step"] + 1
        return events, segment, next_step

    def _rows(self, metrics: Sequence[str], segment: int, first: int, last: int) -> list[Event]:
        """The steps [first, last] of a segment; of a great many, the last one of each bucket."""
        rows: dict[int, dict[str, Any]] = {}
        for name in metrics:
            found = series.of_metric(
                self._client, self._run_id, name, first, last, points=series.MAX_POINTS, segment=segment
            )
            for step, value, bad in zip(found["last_step"], found["last"], found["non_finite"], strict=True):
                rows.setdefault(step, {})[name] = NON_FINITE if bad else value
        return [Event("step", "", {"step": step, "segment": segment, "metrics": rows[step]}) for step in sorted(rows)]


def _standing(event: Event) -> tuple[Any, ...]:
    """An incident or an intervention in its state: the same again is no news."""
    return event.kind, *(event.facts.get(name) for name in ("number", "state", "outcome"))


def _of_incident(incident: Found, run: Found) -> Event:
    how = incidents.state_text(incident, run).text
    at = f"onset step {count(incident['onset_step'])}"
    sentence = f"incident {incident['number']}: {incident['kind']}, {how} ({incident['signal']}, {at})"
    names = ("number", "kind", "state", "outcome", "signal", "onset_step", "detected_step", "end_step", "score")
    facts = {name: incident[name] for name in names}
    return Event("incident", sentence, facts, is_over=incident["state"] == IncidentState.CLOSED)


def _of_intervention(intervention: Found) -> Event:
    sentence = f"intervention {intervention['number']}: {interventions.action_of(intervention)}"
    names = ("number", "incident", "kind", "state", "attempt", "rewind_to", "skip_from", "skip_to")
    facts = {name: intervention[name] for name in names}
    return Event("intervention", sentence, facts, is_over=intervention["state"] not in INTERVENTIONS_UNDER_WAY)


# The command.

INTERVAL = 2.0
MAX_WAIT = 30.0
"""Seconds between two attempts while no collector answers, at most."""
LAST = 10
STYLES = {"incident": Style.YELLOW, "intervention": Style.BLUE, "segment": Style.BLUE, "state": Style.BOLD}


def add_to(commands: Any) -> None:
    parser = commands.add_parser("tail", help="follow a run: its new steps, incidents and interventions")
    add_run(parser)
    parser.add_argument(
        "--metric", action="append", metavar="NAME", help=f"may be repeated (default: {', '.join(METRICS)})"
    )
    parser.add_argument("--last", type=int, default=LAST, metavar="N", help=f"begin N steps back (default: {LAST})")
    parser.add_argument(
        "--interval", type=float, default=INTERVAL, metavar="SECONDS", help=f"between two looks (default: {INTERVAL:g})"
    )
    add_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Ends with the run: 0 if it has finished, 1 if it was interrupted or has failed."""
    if not 0.1 <= options.interval <= 3600:
        raise ConfigurationError(f"--interval {options.interval:g} must be seconds, from 0.1 to 3600")
    terminal = Terminal()
    with connected(options) as client:
        found = find(client, options.which_run)
        follower = RunEvents(client, found, options.metric or (), last=max(0, options.last))
        while True:
            for event in _patiently(follower.look, options):
                _print(terminal, event, as_json=options.json)
            if follower.state != RunState.RUNNING:
                return 0 if follower.state == RunState.FINISHED else 1
            time.sleep(options.interval)


def _patiently(look: Callable[[], list[Event]], options: argparse.Namespace) -> list[Event]:
    """Return what there is to see, however long no collector answers."""
    wait, is_lost = options.interval, False
    while True:
        try:
            found = look()
        except Unreachable as problem:
            if not is_lost:
                _say_about_connection(f"{problem}; it is asked again until it answers", options)
            is_lost = True
            time.sleep(max(wait, problem.retry_after))
            wait = min(MAX_WAIT, 2 * wait)
            continue
        if is_lost:
            _say_about_connection("the collector answers again", options)
        return found


def _say_about_connection(sentence: str, options: argparse.Namespace) -> None:
    if options.json:
        print_json({"event": "connection", "sentence": sentence}, indent=None)
    else:
        print(f"lossguard: {printable(sentence)}", file=sys.stderr, flush=True)


def _print(terminal: Terminal, event: Event, *, as_json: bool) -> None:
    if as_json:
        print_json({"event": event.kind, **event.facts}, indent=None)
    elif event.kind == "step":
        values = [_value(name, value) for name, value in event.facts["metrics"].items()]
        terminal.say(f"step {count(event.facts['step']):>9}", *values)
    else:
        terminal.say(Text(event.sentence, STYLES.get(event.kind)))


def _value(name: str, value: Any) -> Text:
    if value == NON_FINITE:
        return Text(f"  {name} not finite", Style.RED)
    return Text(f"  {name} {number(value):<8}")
