"""One row with the scores that the detectors gave it."""

from collections.abc import Mapping
from dataclasses import dataclass

from monitor.detection.row import Row
from monitor.detection.scoring.readings import SignalReading
from monitor.detection.scoring.value_scores import ValueScores


@dataclass(slots=True)
class ScoredRow:
    """`ScoredRows` of length 1."""

    row: Row
    scores: Mapping[str, ValueScores]
    is_alarm: bool
    """Whether it needs a closer look, whatever the state of incidents."""

    def readings(self) -> dict[str, SignalReading]:
        """Signal by signal."""
        return {name: scores.reading(self.row.values[name]) for name, scores in self.scores.items()}
