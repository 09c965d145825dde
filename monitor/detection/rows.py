"""Rows: consecutive steps of a run, as columns. N is the number of rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lossguard.vocabulary.wording import plural

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Rows:
    """Columns of equal length N. Raises ValueError when they are not, or when the steps do not rise.

    Where `present` is False the value is nan and means "not reported"; a *present* value that is not finite was
    reported so.
    """

    steps: Ints
    metrics: Mapping[str, Floats]
    present: Mapping[str, Bools]
    times: Floats | None = None

    def __post_init__(self) -> None:
        lengths = {f"metrics[{name}]": len(column) for name, column in self.metrics.items()}
        lengths |= {f"present[{name}]": len(column) for name, column in self.present.items()}
        if self.times is not None:
            lengths["times"] = len(self.times)
        for name, length in lengths.items():
            if length != len(self.steps):
                raise ValueError(f"{name} has {plural(length, 'value')} for {plural(len(self.steps), 'step')}")
        if set(self.metrics) != set(self.present):
            raise ValueError("metrics and present must have the same names")
        if len(self.steps) > 1 and not (np.diff(self.steps) > 0).all():
            raise ValueError("steps must be strictly increasing")

    @classmethod
    def of(cls, steps: Sequence[int] | Ints, **columns: Sequence[float | None] | Floats) -> "Rows":
        """Rows from plain sequences; None means "not reported"."""
        metrics, present = {}, {}
        for name, column in columns.items():
            present[name] = np.array([x is not None for x in column], dtype=bool)
            metrics[name] = np.array([np.nan if x is None else x for x in column], dtype=np.float64)
        return cls(np.asarray(steps, dtype=np.int64), metrics, present)

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, part: slice) -> "Rows":
        """Some of these rows (views, nothing is copied)."""
        return Rows(
            self.steps[part],
            {name: column[part] for name, column in self.metrics.items()},
            {name: column[part] for name, column in self.present.items()},
            None if self.times is None else self.times[part],
        )

    def newest(self, count: int) -> "Rows":
        """A copy of the last `count` rows, which does not keep the others in memory."""
        part = self[max(0, len(self) - count) :]
        return Rows(
            part.steps.copy(),
            {name: column.copy() for name, column in part.metrics.items()},
            {name: column.copy() for name, column in part.present.items()},
            None if part.times is None else part.times.copy(),
        )

    def split(self, size: int) -> Iterator["Rows"]:
        """Split the rows into parts of at most `size`."""
        for start in range(0, len(self), size):
            yield self[start : start + size]


@dataclass(slots=True)  # not frozen: that triples the cost, and a collector makes thousands a second
class Row:
    """One row in which every metric was reported: `Rows` of length 1. Nobody changes it."""

    step: int
    values: Mapping[str, float]
    """NaN and infinities were reported so."""
    time: float | None = None

    @classmethod
    def of(cls, rows: Rows) -> Self | None:
        """The only one of these rows; None where one of their metrics was not reported."""
        if not all(present.item() for present in rows.present.values()):
            return None
        values = {name: column.item() for name, column in rows.metrics.items()}
        return cls(rows.steps.item(), values, None if rows.times is None else rows.times.item())

    def as_rows(self) -> Rows:
        """Return the row as columns."""
        present = dict.fromkeys(self.values, np.ones(1, dtype=bool))
        times = None if self.time is None else np.array([self.time])
        metrics = {name: np.array([value], dtype=np.float64) for name, value in self.values.items()}
        return Rows(np.array([self.step], dtype=np.int64), metrics, present, times)
