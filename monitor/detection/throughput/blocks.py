"""The speed of a run in blocks of rows, so that single slow steps (checkpoints, evaluations) do not count."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from monitor.detection.encoding import known_fields
from monitor.detection.row import Row
from monitor.detection.rows import Rows

MIN_INTERVAL = 0.5
"""Seconds: faster steps are measured together, as are rows of one time."""
MIN_INTERVALS, MIN_SECONDS = 16, 15.0
"""A block is complete with so many intervals that last so long together."""
DROPPED = 1 / 8
"""The share of a block's intervals, the slowest ones, that its level leaves out."""

MAX_VALUE = 1e18
"""No count of tokens, and no seconds, are more: their sum stays finite, as the stored state must."""


@dataclass(frozen=True, slots=True)
class Block:
    """A block of consecutive rows."""

    first_step: int
    last_step: int
    level: float
    """Seconds per token where the run counts tokens, else per step; without the slowest intervals."""
    waiting: float | None
    """The share of the time in which the loop waited for data; None where it does not say."""
    counts_tokens: bool

    def to_list(self) -> list[Any]:
        """Its fields in their order."""
        return [self.first_step, self.last_step, self.level, self.waiting, self.counts_tokens]


@dataclass(slots=True)
class Blocks:
    """Makes blocks of rows; it does not matter how the rows are grouped."""

    counts_tokens: bool = False
    last_step: int | None = None
    """Of the last interval, as the next two."""
    last_time: float = 0.0
    last_tokens: float = math.nan
    previous_step: int = 0
    """The step of the last row."""
    first_step: int | None = None
    """Of the present block, as all that follows."""
    levels: list[float] = field(default_factory=list)
    """Seconds per unit of each interval."""
    seconds: float = 0.0
    waited: float = 0.0
    """Seconds; nan where a row did not say."""

    def restart(self) -> None:
        """The time up to the next row is no step, and the block begins again there."""
        self.last_step = None
        self._begin_block()

    def skip(self) -> None:
        """The time up to the next row is no step."""
        self.last_step = None

    def _begin_block(self) -> None:
        self.first_step, self.levels, self.seconds, self.waited = None, [], 0.0, 0.0

    def read(self, rows: Rows) -> Iterator[tuple[int, Block]]:
        """The blocks that these rows complete, each with the number of the rows up to its end."""
        assert rows.times is not None
        tokens, waited = _column(rows, "tokens"), _column(rows, "data_seconds")
        numbered = enumerate(zip(rows.steps.tolist(), rows.times.tolist(), tokens, waited, strict=True), start=1)
        while (found := self._next_block(numbered)) is not None:
            yield found

    def read_row(self, row: Row) -> Block | None:
        """The block that this row completes, if any."""
        assert row.time is not None
        values = (row.values.get(name, math.nan) for name in ("tokens", "data_seconds"))
        tokens, waited = (value if abs(value) < MAX_VALUE else math.nan for value in values)
        found = self._next_block(iter([(1, (row.step, row.time, tokens, waited))]))
        return None if found is None else found[1]

    def _next_block(self, numbered: Iterator[tuple[int, tuple[int, float, float, float]]]) -> tuple[int, Block] | None:
        """Read rows up to the end of the present block: the number of the last one, and the block.

        None: there are too few rows. A row is a step, a time, tokens and seconds waited; NaN was not reported.
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
            self._begin_block()
        self.counts_tokens = counts_tokens
        self.first_step = self.last_step + 1 if self.first_step is None else self.first_step
        self.levels.append(seconds / (units if counts_tokens else step - self.last_step))
        self.seconds += seconds
        self.last_step, self.last_time, self.last_tokens = step, time, tokens

    def _take(self, step: int) -> Block:
        assert self.first_step is not None
        kept = sorted(self.levels)[: len(self.levels) - math.ceil(DROPPED * len(self.levels))]
        share = min(self.waited / self.seconds, 1.0)
        waiting = share if math.isfinite(share) else None
        block = Block(self.first_step, step, sum(kept) / len(kept), waiting, self.counts_tokens)
        self._begin_block()
        return block

    def to_dict(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in self.__slots__} | {"levels": list(self.levels)}
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Blocks":
        """Raises TypeError for what is no mapping."""
        known = known_fields(cls, data)
        return cls(**known | {name: math.nan for name in ("last_tokens", "waited") if known.get(name) is None})


def _column(rows: Rows, name: str) -> list[float]:
    """The values of a metric, nan where it was not reported or is beyond MAX_VALUE."""
    if name not in rows.metrics:
        return [math.nan] * len(rows)
    values = rows.metrics[name]
    finite: list[float] = np.where(np.abs(values) < MAX_VALUE, values, math.nan).tolist()
    return finite
