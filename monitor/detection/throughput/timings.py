"""Timings of a run over many rows each, so that single slow steps (checkpoints, evaluations) do not count."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from monitor.detection.encoding import load
from monitor.detection.rows import Row, Rows

MIN_INTERVAL = 0.5
"""Minimum seconds of an interval: faster steps are timed together, as are rows of equal time."""
MIN_INTERVALS, MIN_SECONDS = 16, 15.0
"""Minimum intervals of a timing, and the minimum of their sum."""
DROPPED = 1 / 8
"""Share of a timing's intervals, the slowest ones, that its level leaves out."""

MAX_VALUE = 1e18
"""Maximum tokens or seconds that count: their sum stays finite, as the stored state must."""


class Timing(NamedTuple):
    """Speed over consecutive rows."""

    first_step: int
    last_step: int
    level: float
    """Seconds per token if the run counts tokens, else per step; without the slowest intervals."""
    waiting: float | None
    """Share of the time in which the loop waited for data; None if the loop does not report it."""
    counts_tokens: bool


@dataclass(slots=True)
class Stopwatch:
    """Makes timings of rows. Any grouping of the rows gives the same timings."""

    counts_tokens: bool = False
    last_step: int | None = None
    """Step at the end of the last interval; the next two fields are its time and tokens."""
    last_time: float = 0.0
    last_tokens: float = math.nan
    previous_step: int = 0
    """Step of the last row."""
    first_step: int | None = None
    """First step of the present timing, which the fields below describe as well."""
    levels: list[float] = field(default_factory=list)
    """Seconds per unit of each interval."""
    seconds: float = 0.0
    waited: float = 0.0
    """Seconds; NaN if a row did not report them."""

    def restart(self) -> None:
        """Ignore the time up to the next row, and begin the timing again there."""
        self.last_step = None
        self._begin_timing()

    def skip(self) -> None:
        """Ignore the time up to the next row."""
        self.last_step = None

    def _begin_timing(self) -> None:
        self.first_step, self.levels, self.seconds, self.waited = None, [], 0.0, 0.0

    def read(self, rows: Rows) -> Iterator[tuple[int, Timing]]:
        """Yield the timings that these rows complete, each with the number of rows up to its end."""
        assert rows.times is not None
        tokens, waited = _column(rows, "tokens"), _column(rows, "data_seconds")
        numbered = enumerate(zip(rows.steps.tolist(), rows.times.tolist(), tokens, waited, strict=True), start=1)
        while (found := self._next(numbered)) is not None:
            yield found

    def read_row(self, row: Row) -> Timing | None:
        """Return the timing that this row completes, if any."""
        assert row.time is not None
        values = (row.values.get(name, math.nan) for name in ("tokens", "data_seconds"))
        tokens, waited = (value if abs(value) < MAX_VALUE else math.nan for value in values)
        found = self._next(iter([(1, (row.step, row.time, tokens, waited))]))
        return None if found is None else found[1]

    def _next(self, numbered: Iterator[tuple[int, tuple[int, float, float, float]]]) -> tuple[int, Timing] | None:
        """Read rows up to the end of the present timing; return the number of the last row, and the timing.

        Returns None if there are too few rows. A row is a step, a time, tokens and seconds waited; NaN: not reported.
        """
        last_time, previous_step = self.last_time, self.previous_step
        for number, (step, time, tokens, waited) in numbered:
            num_steps, previous_step = step - previous_step, step
            if self.last_step is None or time < last_time:
                self.last_step, self.last_time, self.last_tokens = step, time, tokens
                last_time = time
                continue
            self.waited += waited * num_steps
            if time - last_time < MIN_INTERVAL or (self.counts_tokens and tokens != tokens):
                continue
            self._add_interval(step, time, tokens)
            last_time = time
            if len(self.levels) >= MIN_INTERVALS and self.seconds >= MIN_SECONDS:
                self.previous_step = step
                return number, self._take(step)
        self.previous_step = previous_step
        return None

    def _add_interval(self, step: int, time: float, tokens: float) -> None:
        assert self.last_step is not None
        seconds, units = time - self.last_time, tokens - self.last_tokens
        counts_tokens = units > 0  # False for nan
        if counts_tokens != self.counts_tokens:
            self._begin_timing()
        self.counts_tokens = counts_tokens
        self.first_step = self.last_step + 1 if self.first_step is None else self.first_step
        self.levels.append(seconds / (units if counts_tokens else step - self.last_step))
        self.seconds += seconds
        self.last_step, self.last_time, self.last_tokens = step, time, tokens

    def _take(self, step: int) -> Timing:
        assert self.first_step is not None
        kept = sorted(self.levels)[: len(self.levels) - math.ceil(DROPPED * len(self.levels))]
        share = min(self.waited / self.seconds, 1.0)
        waiting = share if math.isfinite(share) else None
        timing = Timing(self.first_step, step, sum(kept) / len(kept), waiting, self.counts_tokens)
        self._begin_timing()
        return timing

    def to_dict(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in self.__slots__} | {"levels": list(self.levels)}
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Stopwatch":
        """Restore a stopwatch from `to_dict`. Raises AttributeError for data that are no mapping."""
        unknown = {name: math.nan for name in ("last_tokens", "waited") if data.get(name) is None}
        return load(cls, data, **unknown)


def _column(rows: Rows, name: str) -> list[float]:
    """Return the values of a metric; NaN where it was not reported or is beyond MAX_VALUE."""
    if name not in rows.metrics:
        return [math.nan] * len(rows)
    values = rows.metrics[name]
    finite: list[float] = np.where(np.abs(values) < MAX_VALUE, values, math.nan).tolist()
    return finite
