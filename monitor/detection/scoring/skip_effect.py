"""Effect of a skip: samples recorded with the skipped batches must not come again without them.

A loop that draws its batches by itself may draw the skipped ones again: a restore sets its random numbers back too, and
nothing in the loop uses the batch index that the guard moves on. The same samples on the same state give the same loss.
So losses that are equal, step by step, to those recorded with the skipped batches show that these came again. A loss of
another batch may be as near by chance: how often, the recorded losses themselves show.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from monitor.detection.rows import Floats, Ints, Rows

MAX_ROWS = 8
"""Steps that are compared, from the first skipped batch on."""
MAX_KNOWN = 32
"""Recorded losses that show how often two are equal by chance."""
MIN_ROWS = 2
MAX_CHANCE = 1e-4
"""The probability that losses of other batches are as near: more is no evidence."""
TOLERANCE = 0.05
"""Tolerated fraction of the noise from step to step: a loss that differs by more is another one."""
ROUNDING = 1e-6
"""Relative rounding of a loss in float32."""
MIN_NOISE = 1e-9
"""Nats."""
DENSITY = 1 / np.sqrt(np.pi)
"""The probability that two normal losses differ by less than a small part of their standard deviation, per part."""


@dataclass(frozen=True, slots=True)
class RepeatedSamples:
    """The evidence that a skip had no effect."""

    restored_step: int
    skip_from: int
    skip_to: int
    first_step: int
    last_step: int
    loss: float
    """Loss at `first_step`, as recorded and as computed again."""


@dataclass(frozen=True, slots=True, eq=False)
class SkipEffect:
    """The losses that were recorded with skipped batches, and how many steps have given them again so far."""

    restored_step: int
    skip_from: int
    skip_to: int
    noise: float
    """Robust standard deviation from step to step."""
    steps: Ints
    recorded: Floats
    """float64[N]: the loss at each of the steps, infinite where it was not finite."""
    known: Floats
    """The finite ones, with some of before."""
    num_rows: int = 0
    """Steps so far that gave their recorded loss again."""
    chance: float = 1.0
    """The probability that losses of other batches are as near to these."""

    def __post_init__(self) -> None:
        """Raises ValueError for columns of different lengths, as in a state that is damaged."""
        if len(self.recorded) != len(self.steps):
            raise ValueError("the columns have different lengths")

    @classmethod
    def of(cls, restored_step: int, rows: Rows, *, skip_from: int, skip_to: int, noise: float) -> Self | None:
        """Build from the rows that used the batches [skip_from, skip_to); None without such rows."""
        if not len(rows) or not {"loss", "batch_index"} <= rows.metrics.keys():
            return None
        loss, batches = rows.metrics["loss"], rows.metrics["batch_index"]
        serves = rows.present["loss"] & np.isfinite(batches) & (rows.steps >= restored_step)
        chosen = np.flatnonzero(serves & (batches >= skip_from) & (batches < skip_to))[:MAX_ROWS]
        if len(chosen) < MIN_ROWS:
            return None
        known = loss[: chosen[-1] + 1]
        return cls(
            restored_step=restored_step,
            skip_from=skip_from,
            skip_to=skip_to,
            noise=max(noise, MIN_NOISE),
            steps=rows.steps[chosen],
            recorded=np.where(np.isfinite(loss[chosen]), loss[chosen], np.inf),
            known=known[np.isfinite(known)][-MAX_KNOWN:],
        )

    def with_row(self, rows: Rows, k: int) -> Self | RepeatedSamples | None:
        """Take in row k; None once the skip has an effect, or nothing is left to compare."""
        step = int(rows.steps[k])
        row = int(np.searchsorted(self.steps, step))
        if row == len(self.steps) or not {"batch_index", "loss"} <= rows.metrics.keys():
            return None
        if self.steps[row] != step:
            return self
        batch, loss = float(rows.metrics["batch_index"][k]), float(rows.metrics["loss"][k])
        is_other = np.isfinite(batch) and not self.skip_from <= batch < self.skip_to
        chance = self._chance(row, loss) if is_other and rows.present["loss"][k] else None
        if chance is None:
            return None
        after = replace(self, num_rows=self.num_rows + 1, chance=self.chance * chance)
        return after._evidence(row) if after.num_rows >= MIN_ROWS and after.chance <= MAX_CHANCE else after

    def _chance(self, row: int, loss: float) -> float | None:
        """The probability that the loss of another batch is as near to the recorded one; None where it is another."""
        recorded = float(self.recorded[row])
        if not (np.isfinite(recorded) and np.isfinite(loss)):
            return None if np.isfinite(recorded) or np.isfinite(loss) else 1.0
        difference = abs(loss - recorded)
        if difference > TOLERANCE * self.noise:
            return None
        near = max(difference, ROUNDING * abs(recorded))
        i, j = np.triu_indices(len(self.known), 1)
        measured = float((np.abs(self.known[i] - self.known[j]) <= near).mean()) if len(i) else 1.0
        return float(min(max(measured, DENSITY * near / self.noise), 1.0))

    def _evidence(self, row: int) -> RepeatedSamples:
        first, loss = int(self.steps[row + 1 - self.num_rows]), float(self.recorded[row + 1 - self.num_rows])
        return RepeatedSamples(self.restored_step, self.skip_from, self.skip_to, first, int(self.steps[row]), loss)
