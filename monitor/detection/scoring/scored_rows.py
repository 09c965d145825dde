"""Rows with the scores that the detectors gave them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from lossguard.vocabulary.metrics import is_advisory
from monitor.detection.rows import Bools, Rows
from monitor.detection.scoring.readings import SignalReading
from monitor.detection.scoring.recent_rows import MAX_RECENT_ROWS, RecentRows
from monitor.detection.scoring.scores import Scores
from monitor.detection.scoring.skipped_updates import Skips


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """`context`: the rows themselves after the `num_before` rows that came before them."""

    rows: Rows
    scores: Mapping[str, Scores]
    context: RecentRows
    num_before: int
    skips: Skips = field(default_factory=Skips)

    def is_withheld(self, k: int) -> bool:
        """True if no detector has seen row k, because its update was skipped."""
        return self.skips.withheld is not None and bool(self.skips.withheld[k])

    def alarms(self) -> Bools:
        """Rows that need a closer look, whatever the state of incidents."""
        alarm = np.zeros(len(self.rows), dtype=bool)
        for name, score in self.scores.items():
            alarm |= score.non_finite | (score.evidence >= 1.0)
            if not is_advisory(name):
                alarm |= (score.single >= 1.0) | (score.drift >= 1.0) | (score.fall >= 1.0)
        alarm[list(self.skips.caps)] = True
        return alarm

    def readings(self, k: int) -> dict[str, SignalReading]:
        """Row k, signal by signal; a signal that was not reported is left out."""
        return {
            name: SignalReading(
                float(self.rows.metrics[name][k]),
                float(score.z[k]),
                float(score.evidence[k]),
                float(score.single[k]),
                float(score.drift[k]),
                float(score.expected[k]),
                float(score.scale[k]),
                int(score.low_step[k]),
                int(score.rise_step[k]),
                float(score.reference[k]),
                float(score.fall[k]),
                float(score.sure[k]),
                bool(score.non_finite[k]),
            )
            for name, score in self.scores.items()
            if self.rows.present[name][k]
        }

    def recent(self, k: int) -> RecentRows:
        """The rows up to row k."""
        end = self.num_before + k + 1
        return self.context[max(end - MAX_RECENT_ROWS, 0) : end]
