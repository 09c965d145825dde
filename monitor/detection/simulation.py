"""Simulates detectors and a policy on recorded rows.

Two steps, because the first is the long one and no policy changes it: `score` the rows, then `simulate` a policy over
the scores. Nothing is rolled back: the policy proposes, so that nothing waits for an operator or a trainer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lossguard.vocabulary.source_facts import EVERY_STEP, SourceFacts
from lossguard.vocabulary.states import SegmentReason
from monitor.detection.effects import Effect, Incident, IncidentChanged, Intervention, InterventionChanged, Outlier
from monitor.detection.engine import DetectionEngine
from monitor.detection.interventions.restorable import thinned
from monitor.detection.rows import Rows
from monitor.detection.scoring.detectors import DetectorSet
from monitor.detection.scoring.scored_rows import ScoredRows
from monitor.detection.settings import DetectionSettings, Mode, Policy

CHECKPOINT_STEPS = 100
"""Recorded rows do not say where the checkpoints were: one is assumed every so many steps."""
REPORT_ROWS = 1000


@dataclass(frozen=True, slots=True)
class SegmentRows:
    """The rows of one segment of a run, which begins at `fork_step`. A curve without rollbacks is one segment."""

    rows: Rows
    number: int = 0
    parent: int | None = None
    fork_step: int = 0
    reason: str = "start"
    declared: Sequence[tuple[int, str]] = ()
    """(step, kind) of the events that were announced on it."""
    source: SourceFacts = EVERY_STEP
    """Source of the rows: how they were made."""


@dataclass(frozen=True, slots=True)
class ScoredSegment:
    """A segment with the scores that the detectors gave its rows."""

    segment: SegmentRows
    scored: Sequence[ScoredRows]


@dataclass(slots=True)
class Simulation:
    """Incidents by number, each with the first thing that the policy would have done about it."""

    incidents: dict[int, Incident] = field(default_factory=dict)
    actions: dict[int, Intervention] = field(default_factory=dict)
    segments: dict[int, int] = field(default_factory=dict)
    """The segment on which an incident began."""
    outliers: int = 0

    def add(self, effect: Effect, segment: int) -> None:
        match effect:
            case IncidentChanged(incident):
                self.incidents[incident.number] = incident
                self.segments.setdefault(incident.number, segment)
            case InterventionChanged(intervention) if intervention.incident is not None:
                self.actions.setdefault(intervention.incident, intervention)
            case Outlier():
                self.outliers += 1


def score(segments: Sequence[SegmentRows], settings: DetectionSettings) -> list[ScoredSegment]:
    """Score segments in the order in which they were trained; each begins with the detectors of its parent."""
    states: dict[tuple[int | None, int], dict[str, Any]] = {}
    result = []
    for segment in segments:
        detectors = DetectorSet(settings)
        if (state := states.get((segment.parent, segment.fork_step))) is not None:
            detectors.load_state_dict(state)
        elif segment.source != EVERY_STEP:
            detectors.set_source(segment.source)
        scored: list[ScoredRows] = []
        forks = sorted({child.fork_step for child in segments if child.parent == segment.number})
        resumed = [(segment.fork_step, SegmentReason.RESUME)] if segment.reason == SegmentReason.RESUME else []
        for part, fork in _cut(segment.rows, forks):
            for step, kind in [*segment.declared, *resumed]:
                if len(part) and part.steps[0] <= step <= part.steps[-1]:
                    detectors.declare(step, kind)
            for rows in part.split(REPORT_ROWS):
                scored += detectors.feed(rows)
            states[(segment.number, fork)] = detectors.state_dict()
        result.append(ScoredSegment(segment, scored))
    return result


def _cut(rows: Rows, steps: Sequence[int]) -> Iterator[tuple[Rows, int]]:
    """The rows below each of these steps and not below the one before it, then the rest."""
    start = 0
    for step in steps:
        end = int(np.searchsorted(rows.steps, step))
        yield rows[start:end], step
        start = end
    yield rows[start:], -1


def simulate(
    segments: Sequence[ScoredSegment], settings: DetectionSettings, policy: Policy, *, every: int = CHECKPOINT_STEPS
) -> Simulation:
    """Let the policy decide over the scores, with a checkpoint every `every` steps. Its mode is ignored."""
    engine = DetectionEngine(settings, replace(policy, mode=Mode.APPROVE))
    simulation = Simulation()
    for each in segments:
        number = each.segment.number
        engine.set_source(each.segment.source)
        if each.segment.parent is not None:
            for effect in engine.fork(each.segment.fork_step, each.segment.reason, (), None):
                simulation.add(effect, number)
        for scored in each.scored:
            engine.set_restorable(thinned(range(0, int(scored.rows.steps[-1]) + 1, every)))
            for effect in engine.feed_scored(scored):
                simulation.add(effect, number)
    return simulation
