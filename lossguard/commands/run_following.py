"""What is new in a run since the last look: its steps, incidents, interventions, segments and state."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lossguard.commands import incidents, interventions, series
from lossguard.commands.named_run import Found, of
from lossguard.commands.readable import count
from lossguard.delivery.client import Client
from lossguard.states import IncidentState

METRICS = ("loss", "grad_norm", "lr")
NON_FINITE = "non-finite"
"""In place of a value that is NaN or infinite: buckets do not say which of them."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that is new. `kind`: step, incident, intervention, segment or state."""

    kind: str
    sentence: str
    facts: dict[str, Any] = field(default_factory=dict)
    is_over: bool = False
    """Whether nothing more will happen to it."""

    def fields(self) -> dict[str, Any]:
        """As `lossguard tail --json` prints it."""
        return {"event": self.kind, **self.facts}


class Follower:
    """Remembers what of a run was seen already. A failed look changes nothing: the next one sees all of it."""

    def __init__(self, client: Client, run: Found, metrics: Sequence[str], *, last: int) -> None:
        """The first look begins `last` steps before the newest one of the run. Without `metrics`: those of METRICS that
        it reports."""
        self._client, self._run_id, self._metrics = client, run["id"], metrics
        self._segment = max((each["number"] for each in run["segments"]), default=None)
        newest = run["newest_step"]
        self._next_step = 0 if newest is None else max(0, newest["step"] + 1 - last)
        self._seen: dict[tuple[str, int], Any] = {}
        self.state = ""
        """Of the run, as of the last look."""

    def look(self) -> list[Event]:
        """What is new. Raises CollectorError."""
        run = of(self._client, self._run_id)
        found = incidents.of_run(self._client, self._run_id)
        seen = dict(self._seen)
        news = _news(seen, [_of_incident(each) for each in found])
        news += _news(seen, [_of_intervention(each) for each in run["interventions"]])
        steps, segment, next_step = self._steps(run)
        state = [_of_state(run)] if run["state"] != self.state else []
        is_first = not self.state
        self._seen, self._segment, self._next_step, self.state = seen, segment, next_step, run["state"]
        if is_first:  # what was over before is not news
            return [*state, *(each for each in news if not each.is_over), *steps]
        return [*news, *steps, *state]

    def _steps(self, run: Found) -> tuple[list[Event], int | None, int]:
        """(the new steps, with the beginnings of new segments between; the newest segment; the next step)."""
        events: list[Event] = []
        segment, next_step = self._segment, self._next_step
        metrics = self._metrics or [name for name in METRICS if name in run["metrics"]] or run["metrics"][:1]
        for each in run["segments"]:
            if segment is not None and each["number"] < segment:
                continue
            if each["number"] != segment:
                events.append(_of_segment(each))
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


def _news(seen: dict[tuple[str, int], Any], events: Sequence[Event]) -> list[Event]:
    """The events whose state is not the one that was seen last; `seen` is updated."""
    new = []
    for each in events:
        key, state = (each.kind, each.facts["number"]), (each.facts["state"], each.facts.get("outcome"))
        if seen.get(key) != state:
            seen[key] = state
            new.append(each)
    return new


def _of_incident(incident: Found) -> Event:
    how = incidents.state_text(incident).text
    at = f"onset step {count(incident['onset_step'])}"
    sentence = f"incident {incident['number']}: {incident['kind']}, {how} ({incident['signal']}, {at})"
    names = ("number", "kind", "state", "outcome", "signal", "onset_step", "detected_step", "end_step", "score")
    facts = {name: incident[name] for name in names}
    return Event("incident", sentence, facts, is_over=incident["state"] == IncidentState.CLOSED)


def _of_intervention(intervention: Found) -> Event:
    sentence = f"intervention {intervention['number']}: {interventions.action_of(intervention)}"
    names = ("number", "incident", "kind", "state", "attempt", "rewind_to", "skip_from", "skip_to")
    facts = {name: intervention[name] for name in names}
    return Event("intervention", sentence, facts, is_over=not interventions.is_under_way(intervention))


def _of_segment(segment: Found) -> Event:
    sentence = f"segment {segment['number']} from step {count(segment['fork_step'])}: {segment['reason']}"
    return Event("segment", sentence, {name: segment[name] for name in ("number", "parent", "fork_step", "reason")})


def _of_state(run: Found) -> Event:
    return Event("state", f"run {run['id']} is {run['state']}", {"run": run["id"], "state": run["state"]})
