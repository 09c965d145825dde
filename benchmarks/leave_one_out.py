"""The detection's figures chosen on all labelled curves but one, and judged on that one, for each of them in turn.

python -m benchmarks.detection --leave-one-out          about two minutes on one core

A figure that was chosen by looking at some curves looks better on them than it is. Here the target rate, the least
thresholds and the share of the sums are chosen anew for every curve, by the other curves alone: the most onsets, then
the fewest false alarms, then the strictest figures.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from typing import NamedTuple

from monitor.backtesting.backtest import backtest_rows
from monitor.backtesting.labelled_curves import LabelledCurve, Score, score
from monitor.detection import DetectionSettings
from monitor.detection.scoring import threshold

TARGET_RATES = (0.3, 1.0, 4.0)
LEAST_THRESHOLDS = (0.9, 1.0, 1.1)
"""Multiples of the present ones."""
SUM_SHARES = (0.3, 1.0, 3.0)
"""For an incident, as multiples of the present ones."""


class Outcome(NamedTuple):
    """Of curves: their score, and the false actions on the clean ones."""

    score: Score
    actions: int

    def plus(self, other: "Outcome") -> "Outcome":
        return Outcome(self.score + other.score, self.actions + other.actions)

    @property
    def action_rate(self) -> float:
        """False actions per 10,000 clean rows."""
        return 1e4 * self.actions / max(self.score.rows, 1)


NONE = Outcome(Score(), 0)


def judge(curve: LabelledCurve, settings: DetectionSettings | None = None) -> Outcome:
    """What our detection and the default policy make of a curve."""
    incidents = backtest_rows(curve.rows, settings)["incidents"]
    actions = sum(incident["action"]["kind"] != "none" for incident in incidents) if curve.kind == "clean" else 0
    return Outcome(score(curve, [int(incident["detected_step"]) for incident in incidents]), actions)


@contextmanager
def figures(least: float, share: float) -> Iterator[None]:
    """The least thresholds times `least`, and `share` times the shares of the sums that make an incident."""
    thresholds, shares = threshold.MIN_THRESHOLDS, threshold.SHARES
    threshold.MIN_THRESHOLDS, threshold.SHARES = thresholds * least, shares.copy()
    threshold.SHARES[0, 1:] *= share
    try:
        yield
    finally:
        threshold.MIN_THRESHOLDS, threshold.SHARES = thresholds, shares


def leave_one_out(curves: Sequence[LabelledCurve]) -> tuple[Outcome, dict[tuple[float, float, float], int]]:
    """The outcomes of the curves that were left out, summed; and how often which figures were chosen."""
    outcomes: dict[tuple[float, float, float], list[Outcome]] = {}
    for chosen in product(TARGET_RATES, LEAST_THRESHOLDS, SUM_SHARES):
        target_rate, least, share = chosen
        with figures(least, share):
            settings = DetectionSettings(false_alarms_per_10k=target_rate)
            outcomes[chosen] = [judge(curve, settings) for curve in curves]
    held_out, times = NONE, dict.fromkeys(outcomes, 0)
    for k in range(len(curves)):
        best = max(outcomes, key=lambda chosen: _merit(outcomes[chosen][:k] + outcomes[chosen][k + 1 :], chosen))
        held_out, times[best] = held_out.plus(outcomes[best][k]), times[best] + 1
    return held_out, {chosen: count for chosen, count in times.items() if count}


def _merit(others: Sequence[Outcome], chosen: tuple[float, float, float]) -> tuple[float, ...]:
    whole, (target_rate, least, share) = sum((outcome.score for outcome in others), Score()), chosen
    return whole.rate <= 1.0, whole.found, -whole.false, -target_rate, least, -share
