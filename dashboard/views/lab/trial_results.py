"""The results of a simulation beside the known incidents: caught, missed or new. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import pandas as pd

from dashboard import formatting
from dashboard.views.lab.trial_input import KnownIncident
from lossguard.vocabulary import wording
from lossguard.vocabulary.states import IncidentKind
from monitor.detection import Incident, Intervention
from monitor.detection.simulation import Simulation

EARLY_STEPS, LATE_STEPS = 2, 12
"""A detected incident may be so much earlier or later than the known one that it matches: as in the benchmark."""

MAX_NAMED = 5
"""Steps that a warning names."""


class TrialVerdict(StrEnum):
    CAUGHT = "caught"  # a known incident was detected
    MISSED = "missed"  # a known incident was not detected
    NEW = "new"  # an incident was detected that is not known


@dataclass(frozen=True, slots=True)
class TrialResult:
    """A known incident, a detected one, or both of them where they match."""

    known: KnownIncident | None
    detected: Incident | None
    intervention: Intervention | None
    segment: int

    @property
    def verdict(self) -> TrialVerdict:
        if self.detected is None:
            return TrialVerdict.MISSED
        return TrialVerdict.NEW if self.known is None else TrialVerdict.CAUGHT

    @property
    def step(self) -> int:
        if self.detected is not None:
            return self.detected.detected_step
        return 0 if self.known is None else self.known.first

    @property
    def rollback(self) -> Intervention | None:
        return self.intervention if self.intervention is not None and self.intervention.rewind_to is not None else None


def trial_results(simulation: Simulation, known_incidents: Sequence[KnownIncident]) -> list[TrialResult]:
    """Match each known incident with the first detected one, and list the detected ones that match none."""
    detected = {
        number: incident
        for number, incident in simulation.incidents.items()
        if incident.kind is not IncidentKind.PLATEAU
    }
    matched: set[int] = set()
    results = []
    for known in known_incidents:
        numbers = [number for number, each in detected.items() if _matches(each, simulation.segments[number], known)]
        matched.update(numbers)
        if numbers:
            first, actions = numbers[0], [simulation.actions[each] for each in numbers if each in simulation.actions]
            action = actions[0] if actions else None
            results.append(TrialResult(known, simulation.incidents[first], action, simulation.segments[first]))
        else:
            results.append(TrialResult(known, None, None, known.segment or 0))
    for number, incident in detected.items():
        if number not in matched:
            intervention, segment = simulation.actions.get(number), simulation.segments[number]
            results.append(TrialResult(None, incident, intervention, segment))
    return sorted(results, key=lambda result: (result.segment, result.step))


def _matches(incident: Incident, segment: int, known: KnownIncident) -> bool:
    if known.segment not in (None, segment):
        return False
    is_early_enough = incident.onset_step <= known.last + LATE_STEPS
    return known.first - EARLY_STEPS <= incident.detected_step and is_early_enough


def table(results: Sequence[TrialResult]) -> pd.DataFrame:
    return pd.DataFrame(_row(each) for each in results)


def _row(result: TrialResult) -> dict[str, str]:
    incident = result.detected
    row = {"Result": str(result.verdict), "Known incident": "-" if result.known is None else result.known.name}
    if incident is None:
        return row | dict.fromkeys(("Detected as", "Onset", "Detected", "Score", "Outcome", "Intervention"), "-")
    return row | {
        "Detected as": formatting.incident_kind(incident.kind),
        "Onset": formatting.count(incident.onset_step),
        "Detected": formatting.count(incident.detected_step),
        "Score": formatting.number(incident.score),
        "Outcome": str(incident.outcome),
        "Intervention": describe(result.intervention),
    }


def describe(intervention: Intervention | None) -> str:
    if intervention is None:
        return "none"
    if intervention.rewind_to is None:
        return "hold until an operator decides"
    batches = "no batches"
    if intervention.skip_from is not None:
        batches = wording.batches(intervention.skip_from, intervention.skip_to)
    start = "" if intervention.rewind_to else " (the start of the run)"
    return f"rewind to {formatting.count(intervention.rewind_to)}{start}, skip {batches}"


def rollbacks(results: Sequence[TrialResult]) -> list[tuple[int, Intervention]]:
    """Return each rollback once, after its incident's step: several known incidents may match one detected."""
    found = [(each.step, each.rollback) for each in results if each.rollback is not None]
    return list({rollback.incident: (step, rollback) for step, rollback in found}.values())


def rewinds_to_start(results: Sequence[TrialResult]) -> str | None:
    """A warning, if a rollback would discard all steps of the run; else None."""
    steps = [step for step, rollback in rollbacks(results) if rollback.rewind_to == 0]
    if not steps:
        return None
    shown = ", ".join(map(formatting.count, steps[:MAX_NAMED])) + (", .." if len(steps) > MAX_NAMED else "")
    which = f"rollback at step {shown}" if len(steps) == 1 else f"rollbacks at steps {shown}"
    return f"The depth reaches the start of the run: step 0. All steps would be discarded by the {which}."


@dataclass(frozen=True, slots=True)
class TrialTotals:
    caught: int
    missed: int
    new: int
    rollbacks: int
    steps_discarded: int
    batches_skipped: int


def totals(results: Sequence[TrialResult]) -> TrialTotals:
    verdicts = [each.verdict for each in results]
    ordered = [rollback for _, rollback in rollbacks(results)]
    return TrialTotals(
        caught=verdicts.count(TrialVerdict.CAUGHT),
        missed=verdicts.count(TrialVerdict.MISSED),
        new=verdicts.count(TrialVerdict.NEW),
        rollbacks=len(ordered),
        steps_discarded=sum(each.decided_step + 1 - (each.rewind_to or 0) for each in ordered),
        batches_skipped=sum((each.skip_to or 0) - (each.skip_from or 0) for each in ordered),
    )
