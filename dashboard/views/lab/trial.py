"""What a trial in the detector lab found, beside what is known to have been there. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from dashboard import formatting
from dashboard.views.lab.trial_input import Trouble
from lossguard.states import IncidentKind
from monitor.detection import Incident, Intervention
from monitor.detection.simulation import Simulation

EARLY, LATE = 2, 12
"""Steps before and after a trouble in which an incident still counts as it: those of the benchmark of the detection."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A trouble with the incident that caught it, either alone, or neither missing."""

    trouble: Trouble | None
    incident: Incident | None
    action: Intervention | None
    segment: int

    @property
    def verdict(self) -> str:
        if self.incident is None:
            return "missed"
        return "new" if self.trouble is None else "caught"

    @property
    def step(self) -> int:
        if self.incident is not None:
            return self.incident.detected_step
        return 0 if self.trouble is None else self.trouble.first


def findings(simulation: Simulation, troubles: Sequence[Trouble]) -> list[Finding]:
    """Every trouble once, with the first incident that caught it; then the incidents that are none of them."""
    left = {number: one for number, one in simulation.incidents.items() if one.kind is not IncidentKind.PLATEAU}
    explained: set[int] = set()
    found = []
    for trouble in troubles:
        hits = [number for number, one in left.items() if _is(one, simulation.segments[number], trouble)]
        first = hits[0] if hits else None
        explained.update(hits)
        incident = None if first is None else left[first]
        action = None if first is None else _deed(simulation, hits)
        found.append(Finding(trouble, incident, action, _segment(simulation, first, trouble)))
    for number, one in left.items():
        if number not in explained:
            found.append(Finding(None, one, simulation.actions.get(number), simulation.segments[number]))
    return sorted(found, key=lambda finding: (finding.segment, finding.step))


def _segment(simulation: Simulation, number: int | None, trouble: Trouble) -> int:
    return (trouble.segment or 0) if number is None else simulation.segments[number]


def _is(incident: Incident, segment: int, trouble: Trouble) -> bool:
    if trouble.segment not in (None, segment):
        return False
    return trouble.first - EARLY <= incident.detected_step and incident.onset_step <= trouble.last + LATE


def _deed(simulation: Simulation, numbers: Sequence[int]) -> Intervention | None:
    return next((simulation.actions[number] for number in numbers if number in simulation.actions), None)


def table(found: Sequence[Finding]) -> pd.DataFrame:
    return pd.DataFrame(_row(each) for each in found)


def _row(each: Finding) -> dict[str, str]:
    one = each.incident
    row = {"": each.verdict, "Known trouble": "-" if each.trouble is None else each.trouble.name}
    if one is None:
        nothing = dict.fromkeys(("Found", "Onset", "Detected", "Score", "Outcome", "What would be done"), "-")
        return row | nothing
    return row | {
        "Found": formatting.incident_kind(one.kind),
        "Onset": formatting.count(one.onset_step),
        "Detected": formatting.count(one.detected_step),
        "Score": formatting.number(one.score),
        "Outcome": str(one.outcome),
        "What would be done": deed(each.action),
    }


def deed(action: Intervention | None) -> str:
    if action is None:
        return "nothing"
    if action.rewind_to is None:
        return "hold for a person"
    return (
        f"rewind to {formatting.count(action.rewind_to)}, skip {formatting.batches(action.skip_from, action.skip_to)}"
    )


@dataclass(frozen=True, slots=True)
class Totals:
    caught: int
    missed: int
    new: int
    rollbacks: int
    steps_given_up: int
    batches_skipped: int


def totals(found: Sequence[Finding]) -> Totals:
    verdicts = [each.verdict for each in found]
    deeds = [each.action for each in found if each.action is not None and each.action.rewind_to is not None]
    return Totals(
        caught=verdicts.count("caught"),
        missed=verdicts.count("missed"),
        new=verdicts.count("new"),
        rollbacks=len(deeds),
        steps_given_up=sum(each.decided_step + 1 - (each.rewind_to or 0) for each in deeds),
        batches_skipped=sum((each.skip_to or 0) - (each.skip_from or 0) for each in deeds),
    )
