"""What the detectors expected of rows that they judged before: the band, and the score of each row.

Nothing of this is kept while a run goes on. It is worked out again from a kept state and the rows since, and comes out
the same: scores depend on the rows and not on how they were cut into reports.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from monitor.detection.rows import Bools, Floats, Rows
from monitor.detection.scoring.detectors import DetectorSet, ScoredRows
from monitor.detection.scoring.readings import CALM_Z
from monitor.detection.scoring.signals import SIGNALS
from monitor.detection.settings import DetectionSettings


@dataclass(frozen=True, slots=True)
class Band:
    """One signal over N rows, in its own unit; nan where nothing was known yet."""

    expected: Floats
    low: Floats
    high: Floats
    """CALM_Z robust standard deviations from the expected value: in band."""
    score: Floats
    """The largest of the signal's statistics against its alarm threshold, which is 1.0; infinite for a broken row."""

    @classmethod
    def of(cls, name: str, judged: Sequence[ScoredRows]) -> Self:
        scores = [each.scores[name] for each in judged]
        expected, scale = (np.concatenate([getattr(one, field) for one in scores]) for field in ("expected", "scale"))
        width = CALM_Z * scale
        if SIGNALS[name].log:  # judged as a logarithm: a factor up and down
            factor = np.exp(width / expected)
            low, high = expected / factor, expected * factor
        else:
            low, high = expected - width, expected + width
        known = np.concatenate([_score(one.evidence, one.single, one.drift, one.broken) for one in scores])
        return cls(expected, low, high, known)


def _score(evidence: Floats, single: Floats, drift: Floats, broken: Bools) -> Floats:
    return np.where(broken, np.inf, np.maximum(np.maximum(evidence, single), drift))


def bands(
    rows: Rows,
    history: Iterable[Rows],
    *,
    detectors: dict[str, Any] | None,
    declared: Sequence[tuple[int, str]] = (),
    settings: DetectionSettings | None = None,
) -> Mapping[str, Band]:
    """The band of every signal that the rows have.

    `history`: the rows between the kept state `detectors` (None: nothing is known) and `rows`; `declared`: (step, kind)
    of the events that were announced on either.
    """
    bank = DetectorSet(settings or DetectionSettings())
    if detectors is not None:
        bank.load_state_dict(detectors)
    for step, kind in declared:
        bank.declare(step, kind)
    for part in history:
        for _ in bank.feed(part):
            pass  # taught, not shown
    judged = [*bank.feed(rows)]
    names = [name for name in SIGNALS if name in rows.metrics]
    return {name: Band.of(name, judged) for name in names} if judged else {}
