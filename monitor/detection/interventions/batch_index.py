"""Batch index of a step: every skip widens the gap between the step and its batch."""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lossguard.vocabulary.protocol import MAX_COUNT
from monitor.detection.row import Row
from monitor.detection.rows import Rows


@dataclass(slots=True)
class BatchIndex:
    """batch = step + offset, where the offset changes at a few steps. An unknown step has the last known offset."""

    steps: list[int] = field(default_factory=lambda: [0])
    offsets: list[int] = field(default_factory=lambda: [0])

    def batch_of(self, step: int) -> int:
        return step + self.offsets[max(bisect_right(self.steps, step) - 1, 0)]

    def update(self, rows: Rows) -> None:
        """Read the `batch_index` column, where it is logged."""
        known = rows.present.get("batch_index")
        if known is None or not known.any():
            return
        column = rows.metrics["batch_index"]
        known = known & np.isfinite(column)
        offsets = column[known].astype(np.int64) - rows.steps[known]
        last = np.concatenate([self.offsets[-1:], offsets[:-1]])
        for k in np.flatnonzero(offsets != last):
            self._change(int(rows.steps[known][k]), int(offsets[k]))

    def read_row(self, row: Row) -> None:
        """Take in one row."""
        batch = row.values.get("batch_index")
        if batch is not None and not (abs(batch) < MAX_COUNT and int(batch) - row.step == self.offsets[-1]):
            self.update(row.as_rows())

    def _change(self, step: int, offset: int) -> None:
        """Set the offset from `step` on."""
        self.rewind(step)
        self.steps.append(step)
        self.offsets.append(offset)

    def rewind(self, step: int) -> None:
        """Forget the offsets of `step` and later (the first entry stays)."""
        keep = max(bisect_right(self.steps, step - 1), 1)
        del self.steps[keep:], self.offsets[keep:]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "BatchIndex":
        """Raises KeyError for data without steps or offsets."""
        return cls(list(data["steps"]), list(data["offsets"]))
