"""One row: what a run reported at one step."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from monitor.detection.rows import Rows


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
