"""The current status of a run, updated with every report, so that /metrics reads one row per run.

Maxima are kept by slots of wall time over the last PEAK_WINDOW_SECONDS. A spike of a single step is thus visible for
longer than a scrape interval, to every scraper, whichever collector stored the report.
"""

import math
from collections.abc import Mapping
from statistics import median
from typing import Any

import numpy as np

from db.models import RunStatus
from db.records.live_runs import ShownRun
from db.runs.verdicts import LEVEL_ROWS
from db.steps.step_block import Floats, MetricColumn
from lossguard.vocabulary.metrics import METRICS, SIGNALS, SKIPPED
from lossguard.vocabulary.protocol import decode_number, encode_number
from monitor.detection.scoring.baseline import median as fast_median
from monitor.ingestion.columns import StepColumns

GAUGES = tuple(metric.name for metric in METRICS if metric.gauge)
"""Metrics whose newest value is shown."""
SLOT_SECONDS = 15.0
NUM_SLOTS = 5
PEAK_WINDOW_SECONDS = SLOT_SECONDS * (NUM_SLOTS - 1)
"""Minimum time for which a maximum is shown; it may be one slot longer."""
NUM_RATE_REPORTS = 16
"""Reports over which the step rate and the token rate are taken."""
MAX_SKIPPED_IN_ROW = 10**6
"""A larger number of skipped updates is none."""
NUM_GAPS = 32
"""Times between reports with steps that are kept."""
NUM_LOSSES = 2 * LEVEL_ROWS
"""Values of the loss that are kept."""
MARK_STEPS, NUM_MARKS = 125, 9
"""Steps between two marks of the level of the loss, and how many are kept: those of about 1,000 steps."""

Status = RunStatus | ShownRun
Rates = list[list[Any]]
"""[time, step, tokens, seconds per step] of each report; tokens and seconds may be None."""
Peaks = list[list[Any]]
"""[slot, {metric: maximum}] of each slot."""


def with_steps(status: RunStatus, columns: StepColumns, now: float) -> dict[str, Any]:
    """Return the changes of the status by new steps, which arrived in order at `now` (unix seconds)."""
    metrics = columns.metrics
    newest = {name: _reported(metrics[name]) for name in GAUGES if name in metrics}
    signals = {name: metrics[name] for name in SIGNALS if name in metrics}
    reported = {name: _reported(column) for name, column in signals.items()}
    maxima = {name: float(values.max()) for name, values in reported.items() if values.size}
    nonfinite = [column.reported & ~column.finite for column in signals.values() if not column.plain]
    gaps = status.report_gaps or []
    if status.expected_by is None:  # an announced pause is no usual gap
        gaps = [*gaps, round(now - status.last_step_at, 3)][-NUM_GAPS:]
    return {
        "report_gaps": gaps,
        "recent_reports": extend_rates(status.recent_reports, status.step, columns),
        "step": columns.steps[-1],
        "last_step_at": now,
        "expected_by": None,
        "latest_values": status.latest_values
        | {name: encode_number(float(values[-1])) for name, values in newest.items() if values.size},
        "losses": extend_losses(status.losses, status.step, columns),
        "peaks": extend_peaks(status.peaks, maxima, int(now // SLOT_SECONDS)),
        "nonfinite_steps": status.nonfinite_steps + (int(np.logical_or.reduce(nonfinite).sum()) if nonfinite else 0),
        "skipped_steps": status.skipped_steps + _num_skipped(columns),
    }


def forget(status: RunStatus) -> None:
    """Begin anew: what is stored cannot be read."""
    status.step, status.expected_by, status.report_gaps = None, None, None
    status.recent_reports, status.latest_values, status.peaks, status.losses = [], {}, [], None
    status.nonfinite_steps = status.skipped_steps = 0


def value(status: Status, name: str) -> float | None:
    """The newest value of a metric; perplexity is exp(loss) unless the loop reports it."""
    known = decode_number(status.latest_values.get(name))
    if known is None and name == "perplexity" and (loss := decode_number(status.latest_values.get("loss"))) is not None:
        return math.inf if loss > 700 else math.exp(loss)
    return known


def peak(status: Status, name: str, now: float) -> float | None:
    """The maximum over the last PEAK_WINDOW_SECONDS; NaN if any value was NaN. None when none was reported."""
    first = int(now // SLOT_SECONDS) - NUM_SLOTS + 1
    found = [decode_number(maxima[name]) for slot, maxima in status.peaks if slot >= first and name in maxima]
    known = [one for one in found if one is not None]
    if any(one != one for one in known):  # NaN outranks every number
        return math.nan
    return max(known, default=None)


def step_seconds(status: Status) -> float | None:
    """Seconds per step: the median over the last reports, so that a pause does not count."""
    known = [seconds for *_, seconds in status.recent_reports if seconds is not None]
    return median(known) if known else None


def tokens_per_second(status: Status) -> float | None:
    """Over the last reports, pauses included."""
    known = [(time, tokens) for time, _, tokens, _ in status.recent_reports if tokens is not None]
    if len(known) < 2 or known[-1][0] <= known[0][0]:
        return None
    rate: float = (known[-1][1] - known[0][1]) / (known[-1][0] - known[0][0])
    return rate


def extend_losses(known: dict[str, Any] | None, last_step: int | None, columns: StepColumns) -> dict[str, Any] | None:
    """The last losses and the marks of their level, with those of one more report. They go back with the steps."""
    column = columns.metrics.get("loss")
    if column is None or not (values := _reported(column)).size:
        return known
    goes_back = last_step is not None and columns.steps[0] <= last_step
    recent = [] if known is None or goes_back else known["recent"]
    marks = [mark for mark in (known or {"marks": []})["marks"] if not goes_back or mark[0] < columns.steps[0]]
    recent = [*recent, *(encode_number(float(f"{each:.6g}")) for each in values[-NUM_LOSSES:].tolist())][-NUM_LOSSES:]
    step = columns.steps[-1]
    if not marks or step - marks[-1][0] >= MARK_STEPS:
        finite = [each for each in recent[-LEVEL_ROWS:] if not isinstance(each, str)]
        marks = [*marks, *([[step, median(finite)]] if finite else [])][-NUM_MARKS:]
    return {"recent": recent, "marks": marks}


def extend_peaks(peaks: Peaks, maxima: Mapping[str, float], slot: int) -> Peaks:
    """The maxima by slot, with the `maxima` of values that arrived in `slot`."""
    recent = [[at, dict(known)] for at, known in peaks if at > slot - NUM_SLOTS]
    if not recent or recent[-1][0] < slot:
        recent.append([slot, {}])
    newest = recent[-1][1]
    for name, new in maxima.items():
        old = decode_number(newest.get(name))
        newest[name] = encode_number(new if old is None or not (old >= new or old != old) else old)  # NaN outranks all
    return recent


def extend_rates(rates: Rates, last_step: int | None, columns: StepColumns) -> Rates:
    """The rates of the last reports, with one more report. They start over when the steps go back."""
    recent = rates if last_step is not None and last_step < columns.steps[0] else []
    tokens = columns.metrics.get("tokens")
    num_tokens = float(tokens.values[-1]) if tokens is not None and tokens.finite[-1] else None
    seconds = _seconds_per_step(recent[-1] if recent else None, columns)
    newest = [float(columns.times[-1]), columns.steps[-1], num_tokens, seconds]
    return [*recent, newest][-NUM_RATE_REPORTS:]


def _seconds_per_step(previous: list[Any] | None, columns: StepColumns) -> float | None:
    """The median over these steps, the first of them since the `previous` report; None where time stood still."""
    if len(columns.steps) == 1:  # most reports: arrays of one or two numbers would cost ten times as much
        if previous is None:
            return None
        seconds = (columns.times[0] - previous[0]) / (columns.steps[0] - previous[1])
        return float(seconds) if seconds > 0 else None
    known = [] if previous is None else [previous]
    times = np.array([time for time, *_ in known] + list(columns.times))
    steps = np.array([step for _, step, *_ in known] + list(columns.steps))
    rates = np.diff(times) / np.diff(steps)
    rates = rates[rates > 0]
    return float(fast_median(rates)) if rates.size else None


def _num_skipped(columns: StepColumns) -> int:
    """Updates, of which a row may stand for several. What is no count is left out."""
    if SKIPPED not in columns.metrics:
        return 0
    values = columns.metrics[SKIPPED].values
    return int(values[(values > 0) & (values <= MAX_SKIPPED_IN_ROW)].sum())


def _reported(column: MetricColumn) -> Floats:
    return column.values if column.plain else column.values[column.reported]
