"""Tokens per second of a run that does not report them itself, from its tokens and times. Pure."""

from collections.abc import Mapping, Sequence

from db.queries import Series

DERIVED = "throughput"
"""Name of the derived metric."""
REPORTED = "tokens_per_second"
"""Name under which a loop reports it."""


def derivable(metrics: Sequence[str]) -> bool:
    """True if it can be derived and is not reported."""
    return "tokens" in metrics and REPORTED not in metrics and DERIVED not in metrics


def throughput(tokens: Series, times: Mapping[int, float]) -> Series:
    """Tokens per second between the last steps of neighbouring buckets, pauses and rewinds included.

    `times` are unix seconds by step.
    """
    rates = Series()
    before: tuple[float, float] | None = None
    for step, count in zip(tokens.last_step, tokens.last, strict=True):
        if count is None or step not in times:
            continue
        now = (count, times[step])
        if before is not None and now[1] > before[1]:
            _append(rates, step, (now[0] - before[0]) / (now[1] - before[1]))
        before = now
    return rates


def _append(series: Series, step: int, rate: float) -> None:
    for column in (series.first_step, series.last_step):
        column.append(step)
    for values in (series.min, series.max, series.mean, series.last, series.first):
        values.append(rate)
    series.count.append(1)
    series.non_finite.append(0)
