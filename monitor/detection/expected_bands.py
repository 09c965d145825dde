"""Recomputes what the detectors expected of judged rows: the band, and the score of each row.

None of this is stored while a run trains. It is recomputed from a stored state and the rows since, with the same
result: scores depend on the rows and not on how they were cut into reports.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from lossguard.vocabulary.source_facts import EVERY_STEP, SourceFacts
from monitor.detection.rows import Floats, Rows
from monitor.detection.scoring.detectors import DetectorSet
from monitor.detection.scoring.scored_rows import IN_BAND_Z, Scores
from monitor.detection.scoring.signals import SIGNALS, parameters
from monitor.detection.settings import DetectionSettings


@dataclass(frozen=True, slots=True)
class Band:
    """One signal over N rows, in its own unit; nan where nothing was known yet."""

    expected: Floats
    low: Floats
    high: Floats
    """IN_BAND_Z robust standard deviations from the expected value."""
    score: Floats
    """The largest of the signal's statistics, in alarm thresholds; infinite for a row that is not finite."""

    @classmethod
    def of(cls, signal: str, scores: Sequence[Scores]) -> Self:
        expected = np.concatenate([each.expected for each in scores])
        width = IN_BAND_Z * np.concatenate([each.scale for each in scores])
        if parameters(signal).log:  # judged as a logarithm: a factor up and down
            factor = np.exp(width / expected)
            low, high = expected / factor, expected * factor
        else:
            low, high = expected - width, expected + width
        return cls(expected, low, high, np.concatenate([_score(each) for each in scores]))


def _score(scores: Scores) -> Floats:
    largest = np.maximum(np.maximum(scores.evidence, scores.single), scores.drift)
    return np.where(scores.non_finite, np.inf, largest)


def bands(
    rows: Rows,
    history: Iterable[Rows],
    *,
    detectors: Mapping[str, Any] | None,
    declared: Sequence[tuple[int, str]] = (),
    settings: DetectionSettings | None = None,
    source: SourceFacts = EVERY_STEP,
) -> Mapping[str, Band]:
    """The band of every signal that the rows have.

    `history`: the rows between the stored state `detectors` (None: nothing is known) and `rows`; `declared`: (step,
    kind) of the events that were announced on either; `source`: how the rows were made.
    """
    detector_set = DetectorSet(settings or DetectionSettings())
    if detectors is not None:
        detector_set.load_state_dict(detectors)
    if detector_set.source.facts != source:
        detector_set.set_source(source)
    for step, kind in declared:
        detector_set.declare(step, kind)
    detector_set.learn(history)
    scored = [*detector_set.feed(rows)]
    judged = scored[-1].scores if scored else {}
    signals = [*(name for name in SIGNALS if name in judged), *(name for name in judged if name not in SIGNALS)]
    return {name: Band.of(name, [each.scores[name] for each in scored]) for name in signals}
