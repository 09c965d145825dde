"""How a run is doing right now: brought up to date with every report, so that /metrics reads one row a run.

Maxima are kept by slots of wall time, for the last PEAK_WINDOW seconds. So a spike of one step stays in sight for
longer than a scrape interval, however many scrape, and whichever collector took the report.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from db.models import RunStatus
from db.steps.columns import MetricColumn
from lossguard.protocol import decode_number, encode_number
from monitor.detection.scoring.robust import median as middle

SHOWN = ("loss", "perplexity", "grad_norm", "log_z", "lr", "tokens")
PEAKS = ("loss", "grad_norm", "log_z")
SLOT = 15.0
"""Seconds."""
NUM_SLOTS = 5
PEAK_WINDOW = SLOT * (NUM_SLOTS - 1)
"""Seconds for which a maximum is shown, at least; up to one slot longer."""
NUM_BEATS = 16
"""Reports whose pace is kept."""
SKIPPED = "skipped"
"""The metric by which a loop says (1, 0) that the optimizer did not take a step."""

Slots = list[list[Any]]


@dataclass(frozen=True, slots=True)
class News:
    """What a report brought: columns of equal length, of new steps in order."""

    steps: Sequence[int] = ()
    times: Sequence[float] = ()
    metrics: Mapping[str, MetricColumn] = field(default_factory=dict)


def beat(pulse: RunStatus, news: News, now: float) -> None:
    """New steps came at `now` (unix seconds)."""
    values = {name: news.metrics[name] for name in SHOWN if name in news.metrics}
    pulse.recent_reports = beats(pulse.recent_reports, pulse.step, news)
    pulse.step, pulse.last_step_at, pulse.expected_by = news.steps[-1], now, None
    pulse.latest_values = {**pulse.latest_values, **_last(values)}
    pulse.peaks = peaks(pulse.peaks, _greatest(values), int(now // SLOT))
    pulse.nonfinite_steps += _num_nonfinite(news)
    pulse.skipped_steps += _num_skipped(news)


def value(pulse: RunStatus, name: str) -> float | None:
    """The last value of a metric; perplexity is exp(loss) where the loop does not tell it."""
    known = decode_number(pulse.latest_values.get(name))
    if known is None and name == "perplexity" and (loss := decode_number(pulse.latest_values.get("loss"))) is not None:
        return math.inf if loss > 700 else math.exp(loss)
    return known


def peak(pulse: RunStatus, name: str, now: float) -> float | None:
    """The maximum of the last PEAK_WINDOW seconds; NaN when a value was NaN. None when nothing came."""
    first = int(now // SLOT) - NUM_SLOTS + 1
    found = [decode_number(values[name]) for slot, values in pulse.peaks if slot >= first and name in values]
    return None if not found else float(np.max(np.array(found, dtype=np.float64)))  # NaN outranks every number


def step_seconds(pulse: RunStatus) -> float | None:
    """Seconds that a step takes: the median of the last reports', so that a pause does not count."""
    paces = [pace for *_, pace in pulse.recent_reports if pace is not None]
    return median(paces) if paces else None


def tokens_per_second(pulse: RunStatus) -> float | None:
    """Over the last reports, pauses included."""
    told = [(time, tokens) for time, _, tokens, _ in pulse.recent_reports if tokens is not None]
    if len(told) < 2 or told[-1][0] <= told[0][0]:
        return None
    rate: float = (told[-1][1] - told[0][1]) / (told[-1][0] - told[0][0])
    return rate


def peaks(known: Slots, values: Mapping[str, float], slot: int) -> Slots:
    """The maxima by slot, after `values` came in `slot`."""
    kept = [[at, dict(old)] for at, old in known if at > slot - NUM_SLOTS]
    if not kept or kept[-1][0] < slot:
        kept.append([slot, {}])
    newest = kept[-1][1]
    for name, new in values.items():
        old = decode_number(newest.get(name))
        newest[name] = encode_number(new if old is None else float(np.maximum(old, new)))
    return kept


def beats(known: Slots, step: int | None, news: News) -> Slots:
    """The pace of the last reports, after one more. A step that goes back begins anew."""
    kept = known if step is not None and step < news.steps[0] else []
    before = [(time, at) for time, at, *_ in kept[-1:]]
    times = np.array([time for time, _ in before] + list(news.times))
    steps = np.array([at for _, at in before] + list(news.steps))
    gaps = np.diff(times) / np.diff(steps)
    forward = gaps[gaps > 0]
    tokens = news.metrics.get("tokens")
    told = float(tokens.values[-1]) if tokens is not None and tokens.finite[-1] else None
    pace = float(middle(forward)) if forward.size else None
    return [*kept, [float(news.times[-1]), news.steps[-1], told, pace]][-NUM_BEATS:]


def _num_nonfinite(news: News) -> int:
    strange = [column.reported & ~column.finite for name, column in news.metrics.items() if name in PEAKS]
    return int(np.logical_or.reduce(strange).sum()) if strange else 0


def _num_skipped(news: News) -> int:
    return int((news.metrics[SKIPPED].values > 0).sum()) if SKIPPED in news.metrics else 0


def _last(values: Mapping[str, MetricColumn]) -> dict[str, Any]:
    told = {name: column.values[column.reported] for name, column in values.items()}
    return {name: encode_number(float(column[-1])) for name, column in told.items() if column.size}


def _greatest(values: Mapping[str, MetricColumn]) -> dict[str, float]:
    told = {name: values[name].values[values[name].reported] for name in PEAKS if name in values}
    return {name: float(column.max()) for name, column in told.items() if column.size}
