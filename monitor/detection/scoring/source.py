"""Judges rows that are not one per step as the loop computed them: see `SourceFacts`.

A smoothed loss is judged as it was before the smoothing. With s the smoothed and x the true loss, a the weight of the
past: s[k] = a s[k-1] + (1 - a) x[k], so x[k] = s[k-1] + (s[k] - s[k-1]) / (1 - a). An `a` that is a little wrong
changes the size of the noise, not the level.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isfinite, nan
from typing import Any, Self

import numpy as np

from lossguard.vocabulary.source_facts import SourceFacts
from monitor.detection.rows import Bools, Floats, Rows

MIN_LEVEL = 0.05
"""Nats: from a level above it no training gets to exactly 0. Below it a rounded loss does."""
MIN_PAIRED = 16
"""Rows in which grad norm and loss came together, before a grad norm without a loss says that the loss was left out."""


@dataclass(slots=True)
class SourceCorrection:
    """Corrects the loss of rows, in their order. The state is exact: any split of a stream gives the same rows."""

    facts: SourceFacts = field(default_factory=SourceFacts)
    last_loss: float = nan
    """The last loss as it was logged; NaN where there is none."""
    num_paired: int = 0
    """Rows so far in which grad norm and loss came together, since one in which they did not, at most MIN_PAIRED."""

    def apply(self, rows: Rows) -> Rows:
        """The rows with the loss as it was before it was filtered or smoothed, as far as that can be known."""
        if "loss" not in rows.metrics or not (self.facts.nan_filtered or self.facts.smoothing):
            return rows
        loss, present = rows.metrics["loss"], rows.present["loss"]
        if self.facts.nan_filtered:
            hidden = self._zeros(loss, present) | self._left_out(rows)
            loss, present = np.where(hidden, nan, loss), present | hidden
        if self.facts.smoothing:
            loss = self._before_smoothing(loss, present)
        else:
            self._keep_last(loss)
        return replace(rows, metrics={**rows.metrics, "loss": loss}, present={**rows.present, "loss": present})

    def _zeros(self, loss: Floats, present: Bools) -> Bools:
        """Losses of exactly 0 after a level from which no training gets there."""
        zeros: Bools = present & (loss == 0.0)
        if not zeros.any():
            return zeros
        known = np.concatenate([[self.last_loss], loss])
        usable = np.isfinite(known) & (known != 0.0)
        newest = np.maximum.accumulate(np.where(usable, np.arange(len(known)), 0))
        before = known[newest[:-1]]
        hidden: Bools = zeros & ~(np.abs(before) < MIN_LEVEL)  # also where nothing is known
        return hidden

    def _left_out(self, rows: Rows) -> Bools:
        """Rows with a grad norm and without a loss, where both have always come together."""
        has_loss, has_norm = rows.present["loss"], rows.present.get("grad_norm")
        left_out = np.zeros(len(rows), dtype=bool)
        if has_norm is None:
            return left_out
        for k in np.flatnonzero(has_norm).tolist():
            if has_loss[k]:
                self.num_paired = min(self.num_paired + 1, MIN_PAIRED)
            elif self.num_paired == MIN_PAIRED:
                left_out[k] = True
            else:
                self.num_paired = 0
        return left_out

    def _before_smoothing(self, loss: Floats, present: Bools) -> Floats:
        where = np.flatnonzero(present)
        values = loss[where]
        before = np.concatenate([[self.last_loss], values[:-1]])
        raw = before + (values - before) / (1.0 - self.facts.smoothing)
        corrected = loss.copy()
        corrected[where] = np.where(np.isfinite(before), raw, values)
        if len(values):
            self.last_loss = float(values[-1])
        return corrected

    def _keep_last(self, loss: Floats) -> None:
        usable = loss[np.isfinite(loss) & (loss != 0.0)]
        if len(usable):
            self.last_loss = float(usable[-1])

    def to_dict(self) -> dict[str, Any]:
        last = self.last_loss if isfinite(self.last_loss) else None
        return {"facts": self.facts.to_details(), "last_loss": last, "num_paired": self.num_paired}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        """Undo `to_dict`. Raises KeyError, TypeError or ValueError for what is no such state."""
        last = state["last_loss"]
        facts = SourceFacts.from_details(state["facts"])
        return cls(facts, nan if last is None else float(last), int(state["num_paired"]))
