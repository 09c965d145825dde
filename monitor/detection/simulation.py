"""What the detectors and a policy would have said and done on rows that were recorded before.

Two steps, because the first is the long one and no policy changes it: `score` the rows, then `rehearse` a policy over
the scores. Nothing is rolled back: the policy proposes, so that no person's word or trainer's deed is waited for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from monitor.detection.effects import Effect, Incident, IncidentChanged, Intervention, InterventionChanged, Outlier
from monitor.detection.engine import DetectionEngine, thinned
from monitor.detection.interventions.policy import Mode, Policy
from monitor.detection.rows import Rows
from monitor.detection.scoring.detectors import DetectorSet, ScoredRows
from monitor.detection.settings import DetectionSettings

CHECKPOINT_STEPS = 100
"""Recorded rows do not say where the checkpoints were: one is supposed every so many steps."""
REPORT_ROWS = 1000


@dataclass(frozen=True, slots=True)
class SegmentRows:
    """The rows of one segment of a run, the first of which is `fork_step`. A curve without rollbacks is one strand."""

    rows: Rows
    number: int = 0
    parent: int | None = None
    fork_step: int = 0
    reason: str = "start"
    declared: Sequence[tuple[int, str]] = ()
    """(step, kind) of the events that were announced on it."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A strand with what every signal's detector made of its rows."""

    strand: SegmentRows
    judged: Sequence[ScoredRows]


@dataclass(slots=True)
class Simulation:
    """By number of the incident; the first thing that the policy would have done about it."""

    incidents: dict[int, Incident] = field(default_factory=dict)
    actions: dict[int, Intervention] = field(default_factory=dict)
    segments: dict[int, int] = field(default_factory=dict)
    """The strand on which an incident began."""
    outliers: int = 0

    def take(self, effect: Effect, segment: int) -> None:
        match effect:
            case IncidentChanged(incident):
                self.incidents[incident.number] = incident
                self.segments.setdefault(incident.number, segment)
            case InterventionChanged(intervention) if intervention.incident is not None:
                self.actions.setdefault(intervention.incident, intervention)
            case Outlier():
                self.outliers += 1


def score(strands: Sequence[SegmentRows], settings: DetectionSettings) -> list[Scored]:
    """Judge the strands in the order in which they were trained; each goes on from where its parent stood."""
    states: dict[tuple[int | None, int], dict[str, Any]] = {}
    scored = []
    for strand in strands:
        bank = DetectorSet(settings)
        if (state := states.get((strand.parent, strand.fork_step))) is not None:
            bank.load_state_dict(state)
        judged: list[ScoredRows] = []
        forks = sorted({child.fork_step for child in strands if child.parent == strand.number})
        announced = [*strand.declared, *([(strand.fork_step, "resume")] if strand.reason == "resume" else [])]
        for part, fork in _cut(strand.rows, forks):
            for step, kind in announced:
                if len(part) and part.steps[0] <= step <= part.steps[-1]:
                    bank.declare(step, kind)
            for rows in part.split(REPORT_ROWS):
                judged += bank.feed(rows)
            states[(strand.number, fork)] = bank.state_dict()
        scored.append(Scored(strand, judged))
    return scored


def _cut(rows: Rows, steps: Sequence[int]) -> Iterator[tuple[Rows, int]]:
    """The rows below each of these steps and not below the one before it, then the rest."""
    start = 0
    for step in steps:
        end = int(np.searchsorted(rows.steps, step))
        yield rows[start:end], step
        start = end
    yield rows[start:], -1


def simulate(
    scored: Sequence[Scored], settings: DetectionSettings, policy: Policy, *, every: int = CHECKPOINT_STEPS
) -> Simulation:
    """Let the policy decide over the scores, with a checkpoint every `every` steps. Its mode is left aside."""
    watch = DetectionEngine(settings, replace(policy, mode=Mode.APPROVE))
    found = Simulation()
    for one in scored:
        number = one.strand.number
        if one.strand.parent is not None:
            for effect in watch.fork(one.strand.fork_step, one.strand.reason, (), None):
                found.take(effect, number)
        for judged in one.judged:
            watch.restore_from(thinned(range(0, int(judged.rows.steps[-1]) + 1, every)))
            for effect in watch.follow(judged):
                found.take(effect, number)
    return found
