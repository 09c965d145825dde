"""Compares the recorded first steps after a restore with the steps that are computed there again.

N is the number of recorded rows, at most MAX_ROWS.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from monitor.detection.rows import Bools, Floats, Ints, Rows

MAX_ROWS = 8
"""Rows that are compared: the first ones show all, and rounding grows with every update."""
RATE_TOLERANCE = 1e-6
"""Relative tolerance of a learning rate: the rounding of a float32. A schedule repeats its rates exactly."""


@dataclass(frozen=True, slots=True)
class RateDifference:
    """A step that was computed again with another learning rate."""

    step: int
    recorded: float
    found: float

    def score(self) -> float:
        """Difference in tolerances, above 1."""
        known = abs(self.recorded)
        return abs(self.found - self.recorded) / (RATE_TOLERANCE * known) if known else np.inf


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Recorded rows, and what was computed again at their steps so far: columns of length N, NaN where not known.

    A learning rate follows the step, so it is compared at every row. A loss follows the batch as well.
    """

    restored_step: int
    noise: float
    """Robust standard deviation from step to step."""
    is_new_process: bool
    """True if another process computes the steps again, maybe on other hardware."""
    end_step: int
    """Rows from this step on are not compared."""
    loss_end: int
    """Losses from this step on are not compared."""
    steps: Ints
    batches: Floats
    learning_rates: Floats
    found_rates: Floats
    recorded: Floats
    recomputed: Floats
    """Infinite where the loss was not finite."""

    def __post_init__(self) -> None:
        """Raises ValueError for columns of different lengths, as in a state that is damaged."""
        columns = (self.batches, self.learning_rates, self.found_rates, self.recorded, self.recomputed)
        if not 0 < len(self.steps) <= MAX_ROWS or any(len(each) != len(self.steps) for each in columns):
            raise ValueError(f"a comparison has columns of the same 1 to {MAX_ROWS} rows")

    @classmethod
    def of(
        cls,
        restored_step: int,
        rows: Rows,
        *,
        noise: float,
        is_new_process: bool = True,
        end_step: int | None = None,
        losses: bool = True,
    ) -> Self | None:
        """Record the first of these rows before `end_step`; None if no row can serve.

        A row serves that has a batch index and a loss, up to the first loss that is not finite; where no row has one,
        a row with a learning rate. `losses`: whether losses can be compared at all.
        """
        if not len(rows) or "batch_index" not in rows.metrics:
            return None
        nothing = np.full(len(rows), np.nan)
        batches, loss = rows.metrics["batch_index"], rows.metrics.get("loss", nothing)
        is_damaged = np.cumsum(rows.present["loss"] & ~np.isfinite(loss)) > 0 if "loss" in rows.metrics else False
        loss, rates = loss if losses else nothing, rows.metrics.get("lr", nothing)
        serves = np.isfinite(batches) & ~is_damaged & (rows.steps >= restored_step)
        if end_step is not None:
            serves &= rows.steps < end_step
        has_loss = serves & np.isfinite(loss)
        chosen = np.flatnonzero(has_loss if has_loss.any() else serves & np.isfinite(rates))[:MAX_ROWS]
        if not len(chosen):
            return None
        steps, unknown = rows.steps[chosen], nothing[chosen]
        return cls(
            restored_step=restored_step,
            noise=noise,
            is_new_process=is_new_process,
            end_step=int(steps[-1]) + 1,
            loss_end=int(steps[-1]) + 1,
            steps=steps,
            batches=batches[chosen],
            learning_rates=np.where(np.isfinite(rates), rates, np.nan)[chosen],
            found_rates=unknown,
            recorded=loss[chosen],
            recomputed=unknown,
        )

    def again(self, *, is_new_process: bool) -> Self:
        """Return the record for another replay."""
        nothing, end = np.full(len(self.steps), np.nan), int(self.steps[-1]) + 1
        again = replace(self, is_new_process=is_new_process, end_step=end, loss_end=end)
        return replace(again, found_rates=nothing, recomputed=nothing)

    def ending_at(self, step: int) -> Self:
        """Return the comparison without the rows from `step` on: there something else changes."""
        return replace(self, end_step=min(self.end_step, step))

    def is_over_after(self, step: int) -> bool:
        """True if no row after `step` is compared."""
        is_ahead = (self.steps > step) & (self.steps < self.end_step)
        waits = (~np.isnan(self.recorded) & (self.steps < self.loss_end)) | ~np.isnan(self.learning_rates)
        return not (is_ahead & waits).any()

    def with_row(self, rows: Rows, k: int) -> Self:
        """Take in row k. The comparison ends after another learning rate, that of losses before another batch."""
        step = int(rows.steps[k])
        row = int(np.searchsorted(self.steps, step))
        if step >= self.end_step or self.steps[row] != step:
            return self
        loss_end = self.loss_end if _value(rows, "batch_index", k) == self.batches[row] else min(self.loss_end, step)
        found, recomputed = self.found_rates.copy(), self.recomputed.copy()
        found[row], loss = _value(rows, "lr", k), _value(rows, "loss", k)
        if step < loss_end and "loss" in rows.metrics and rows.present["loss"][k]:
            recomputed[row] = loss if np.isfinite(loss) else np.inf
        after = replace(self, found_rates=found, recomputed=recomputed, loss_end=loss_end)
        return after if after.rate_difference() is None else after.ending_at(step + 1)

    def compared(self) -> Bools:
        """The rows whose loss was computed again."""
        return ~np.isnan(self.recorded) & ~np.isnan(self.recomputed)

    def rate_difference(self) -> RateDifference | None:
        """The first step that was computed again with another learning rate."""
        known = np.isfinite(self.learning_rates) & np.isfinite(self.found_rates)
        allowed = RATE_TOLERANCE * np.abs(self.learning_rates)
        for row in np.flatnonzero(known & (np.abs(self.found_rates - self.learning_rates) > allowed)):
            return RateDifference(int(self.steps[row]), float(self.learning_rates[row]), float(self.found_rates[row]))
        return None

    def differences(self) -> Floats:
        """float64[MAX_ROWS]: of the loss of each row, NaN where there is none."""
        padded = np.full(MAX_ROWS, np.nan)
        padded[: len(self.steps)] = np.abs(self.recomputed - self.recorded)
        return padded


def _value(rows: Rows, name: str, k: int) -> float:
    return float(rows.metrics[name][k]) if name in rows.metrics else np.nan
