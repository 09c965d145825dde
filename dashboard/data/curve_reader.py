"""Reads the curves of one run over one range of steps, and where those steps lie along an x axis.

The perplexity of a bucket is that of its loss, so that its curve never contradicts that of the loss. Throughput is
derived from tokens and times where a run does not report it.
"""

import math
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from sqlalchemy.orm import Session

from dashboard.axes import PLAIN_STEPS, StepAxis, XAxis
from dashboard.data.facts import LatestValue, num_parameters
from db import queries
from db.lineage import StepRange
from db.models import Run
from db.queries import Series

PERPLEXITY, LOSS = "perplexity", "loss"
LARGEST_LOSS = math.log(sys.float_info.max)
"""Maximum loss in nats; the perplexity of a larger one is no float."""


def perplexity(loss: Series) -> Series:
    """exp of each column: that of a bucket is exp of its mean loss.

    The mean of the perplexities would be that of the largest ones.
    """
    return replace(
        loss,
        min=_exp(loss.min),
        max=_exp(loss.max),
        mean=_exp(loss.mean),
        first=_exp(loss.first),
        last=_exp(loss.last),
    )


def _exp(column: Sequence[float | None]) -> list[float | None]:
    """The largest float where exp of it is larger."""
    return [
        None if value is None else math.exp(value) if value < LARGEST_LOSS else sys.float_info.max for value in column
    ]


THROUGHPUT = "throughput"
"""Name of the derived metric."""
REPORTED_THROUGHPUT = "tokens_per_second"
"""Name under which a loop reports it."""


def is_throughput_derivable(metrics: Sequence[str]) -> bool:
    """True if it can be derived and is not reported."""
    return "tokens" in metrics and REPORTED_THROUGHPUT not in metrics and THROUGHPUT not in metrics


def throughput(tokens: Series, times: Mapping[int, float]) -> Series:
    """Tokens per second between the last steps of neighbouring buckets, pauses and rewinds included.

    `times` are unix seconds by step.
    """
    rates: dict[int, float | None] = {}
    before: tuple[float, float] | None = None
    for step, count in zip(tokens.last_step, tokens.last, strict=True):
        if count is None or step not in times:
            continue
        now = (count, times[step])
        if before is not None and now[1] > before[1]:
            rates[step] = (now[0] - before[0]) / (now[1] - before[1])
        before = now
    steps, values = list(rates), list(rates.values())
    same = dict.fromkeys(("min", "max", "mean", "first", "last"), values)
    return Series(first_step=steps, last_step=steps, count=[1] * len(steps), non_finite=[0] * len(steps), **same)


DERIVED_FROM = {PERPLEXITY: LOSS, THROUGHPUT: "tokens"}


class CurveReader:
    """Reads at most `max_points` buckets of each metric over `window` (first and last step; None: the whole run)."""

    def __init__(self, session: Session, run: Run, window: tuple[int, int] | None, max_points: int) -> None:
        self._session, self._run, self._window, self._max_points = session, run, window, max_points

    def series(self, metrics: Sequence[str], step_ranges: Sequence[StepRange]) -> dict[str, Series]:
        """Return series by metric; perplexity is that of the loss, and throughput is derived if not reported."""
        needed = {metric: name for metric, name in DERIVED_FROM.items() if metric in metrics}
        found = self._stored({*metrics, *needed.values()}, step_ranges, self._window)
        if PERPLEXITY in needed and len(found[LOSS]):
            found[PERPLEXITY] = perplexity(found[LOSS])
        if THROUGHPUT in needed:
            tokens = found["tokens"]
            found[THROUGHPUT] = throughput(tokens, self._times(step_ranges, tokens.last_step))
        return {name: found[name] for name in metrics}

    def latest(self, metric: str, step_ranges: Sequence[StepRange]) -> LatestValue | None:
        """The value of the newest step that has this metric; None without one."""
        window = self._window
        series = self._stored([metric], step_ranges, window)[metric]
        while len(series) and series.non_finite[-1] and series.first_step[-1] != series.last_step[-1]:
            # A bucket does not say which of its values was not finite: the last bucket is read at a finer resolution.
            window = series.first_step[-1], series.last_step[-1]
            series = self._stored([metric], step_ranges, window)[metric]
        if not len(series):
            return None
        value = series.last[-1]
        return LatestValue(series.last_step[-1], math.nan if value is None or series.non_finite[-1] else value)

    def step_axis(self, x_axis: XAxis, step_ranges: Sequence[StepRange]) -> StepAxis:
        """Exact at the ends of every bucket of the window, and of the whole run: a mark may lie outside the window."""
        if x_axis is XAxis.STEP:
            return PLAIN_STEPS
        positions: dict[int, float] = {}
        for window in {None, self._window}:
            positions |= self._positions(x_axis, step_ranges, window)
        return StepAxis.through(positions)

    def _positions(
        self, x_axis: XAxis, step_ranges: Sequence[StepRange], window: tuple[int, int] | None
    ) -> dict[int, float]:
        if x_axis is XAxis.TIME:
            # The first metric stands for all: most steps have it.
            metric = next(iter(queries.metric_names(self._session, run=self._run)), "loss")
            series = self._stored([metric], step_ranges, window)[metric]
            times = self._times(step_ranges, sorted({*series.first_step, *series.last_step}))
            return {step: 1000 * time for step, time in times.items()}
        parameters = num_parameters(self._run.config) if x_axis is XAxis.FLOPS else None
        scale = 1.0 if parameters is None else 6.0 * parameters
        tokens = self._stored(["tokens"], step_ranges, window)["tokens"]
        ends = [*zip(tokens.first_step, tokens.first, strict=True), *zip(tokens.last_step, tokens.last, strict=True)]
        return {step: scale * count for step, count in ends if count is not None}

    def _stored(
        self, metrics: Collection[str], step_ranges: Sequence[StepRange], window: tuple[int, int] | None
    ) -> dict[str, Series]:
        first, last = window or (None, None)
        return queries.many_series(
            self._session,
            run=self._run,
            step_ranges=step_ranges,
            metrics=metrics,
            first=first,
            last=last,
            points=self._max_points,
        )

    def _times(self, step_ranges: Sequence[StepRange], steps: Sequence[int]) -> dict[int, float]:
        return queries.times(self._session, run=self._run, step_ranges=step_ranges, steps=steps)
